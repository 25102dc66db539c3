"""From the text of a rule expression to its tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from cloudlet.model.errors import InvalidParameter
from cloudlet.rules.ast import Span


class Kind(Enum):
    """What a token is."""

    NUMBER = "number"
    STRING = "text"
    TEMPLATE = "template"
    REGEX = "regular expression"
    NAME = "name"
    SYMBOL = "symbol"
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    """One token. ``value``: the number, the text, the symbol, the pattern and its options, or the parts of a
    template (texts, and spans of the expressions between them).
    """

    kind: Kind
    value: Any
    span: Span


class RuleSyntax(InvalidParameter):
    """The expression of a rule cannot be read."""


_SYMBOLS: Final = ("&&", "||", "==", "!=", ">=", "<=", ">", "<", "!", "+", "-", "(", ")", "[", "]", ",", ".")
_INSTEAD: Final = {
    "===": "==",
    "!==": "!=",
    "=": "==",
    "&": "&&",
    "|": "||",
    "\u201c": "'",
    "\u201d": "'",
    "\u2018": "'",
    "\u2019": "'",
    "\uff08": "(",
    "\uff09": ")",
    "\uff0c": ",",
}
_NUMBER: Final = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}
_INT_DIGITS_MAX: Final = 18
TEMPLATES_MAX: Final = 32


def failure(position: int, problem: str) -> RuleSyntax:
    """The error of a place in the text, counted from 1."""
    return RuleSyntax(f"character {position + 1}: {problem}")


def tokens(source: str, start: int = 0, end: int | None = None) -> list[Token]:
    """The tokens of ``source[start:end]``, an END token last. Raises RuleSyntax with the position."""
    return _Lexer(source, len(source) if end is None else end).all(start)


@dataclass(slots=True)
class _Lexer:
    source: str
    end: int
    templates: int = 0

    def all(self, at: int) -> list[Token]:
        found: list[Token] = []
        while True:
            while at < self.end and self.source[at] in " \t\r\n":
                at += 1
            if at >= self.end:
                found.append(Token(Kind.END, "", Span(self.end, self.end)))
                return found
            token = self.next(at, found[-1] if found else None)
            found.append(token)
            at = token.span.end

    def next(self, at: int, before: Token | None) -> Token:
        char = self.source[at]
        if char in "'\"":
            return self.string(at, char)
        if char == "`":
            return self.template(at)
        if char == "/" and not _ends_operand(before):
            return self.regex(at)
        if match := _NUMBER.match(self.source, at, self.end):
            return self.number(match)
        if match := _NAME.match(self.source, at, self.end):
            return Token(Kind.NAME, match.group(), Span(at, match.end()))
        return self.symbol(at)

    def symbol(self, at: int) -> Token:
        for wrong, right in _INSTEAD.items():
            known = wrong in ("=", "&", "|") and self.source.startswith(("==", "&&", "||"), at)
            if self.source.startswith(wrong, at) and not known:
                raise failure(at, f"write {right} instead of {wrong}")
        for symbol in _SYMBOLS:
            if self.source.startswith(symbol, at):
                return Token(Kind.SYMBOL, symbol, Span(at, at + len(symbol)))
        raise failure(
            at, f"{self.source[at]!r} means nothing here; operators are == != > >= < <= in && || ! +"
        )

    def number(self, match: re.Match[str]) -> Token:
        text = match.group()
        if match.end() < self.end and self.source[match.end()] in "0123456789_xXn":
            raise failure(match.start(), "numbers are written in decimal digits, such as 10 or 1.5")
        whole = text.isdecimal() and len(text) <= _INT_DIGITS_MAX
        return Token(Kind.NUMBER, int(text) if whole else float(text), Span(*match.span()))

    def string(self, start: int, quote: str) -> Token:
        parts: list[str] = []
        at = start + 1
        while at < self.end and self.source[at] != quote:
            text, at = self.character(at)
            parts.append(text)
        if at >= self.end:
            raise failure(start, f"the text that begins here is not closed; write {quote} at its end")
        return Token(Kind.STRING, "".join(parts), Span(start, at + 1))

    def character(self, at: int) -> tuple[str, int]:
        """One character of a text, and where the next one stands."""
        if self.source[at] != "\\":
            return self.source[at], at + 1
        if at + 1 >= self.end:
            raise failure(at, "a backslash needs a character after it")
        char = self.source[at + 1]
        width = {"u": 4, "x": 2}.get(char)
        if width is None:
            return _ESCAPES.get(char, char), at + 2
        digits = self.source[at + 2 : at + 2 + width]
        if not re.fullmatch(rf"[0-9A-Fa-f]{{{width}}}", digits) or 0xD800 <= int(digits, 16) < 0xE000:
            raise failure(at, f"\\{char} needs {width} hexadecimal digits of a character")
        return chr(int(digits, 16)), at + 2 + width

    def template(self, start: int) -> Token:
        self.templates += 1
        if self.templates > TEMPLATES_MAX:
            raise failure(start, f"an expression may have {TEMPLATES_MAX} templates, nested ones included")
        parts: list[str | Span] = []
        text: list[str] = []
        at = start + 1
        while at < self.end and self.source[at] != "`":
            if self.source.startswith("${", at):
                close = self.closing(at + 2)
                parts += ["".join(text), Span(at + 2, close)]
                text, at = [], close + 1
            else:
                char, at = self.character(at)
                text.append(char)
        if at >= self.end:
            raise failure(start, "the template that begins here is not closed; write ` at its end")
        return Token(Kind.TEMPLATE, (*parts, "".join(text)), Span(start, at + 1))

    def closing(self, at: int) -> int:
        """Position of the brace that ends an expression inside a template."""
        start = at
        while at < self.end and self.source[at] != "}":
            char = self.source[at]
            if char == "`":
                at = self.template(at).span.end
            elif char in "'\"":
                at = self.string(at, char).span.end
            else:
                at += 1
        if at >= self.end:
            raise failure(start, "${ is not closed; write } after the expression")
        return at

    def regex(self, start: int) -> Token:
        at, in_class = start + 1, False
        while at < self.end and (self.source[at] != "/" or in_class):
            char = self.source[at]
            in_class = (char == "[" or in_class) and char != "]"
            at += 2 if char == "\\" else 1
        if at >= self.end or at == start + 1:
            raise failure(start, "the regular expression that begins here is empty or not closed with /")
        pattern = self.source[start + 1 : at].replace("\\/", "/")
        end = at + 1
        while end < self.end and self.source[end].isalpha():
            end += 1
        return Token(Kind.REGEX, (pattern, self.source[at + 1 : end]), Span(start, end))


def _ends_operand(token: Token | None) -> bool:
    """Whether a slash after this token would be a division, which the language does not have."""
    if token is None:
        return False
    if token.kind is Kind.SYMBOL:
        return token.value in (")", "]")
    return not (token.kind is Kind.NAME and token.value == "in")
