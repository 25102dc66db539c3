"""From the text of a rule expression to its tree.

Grammar, loosest first: ``||``, ``&&``, ``== !=``, ``< <= > >= in``, ``+``, ``!`` and the sign, then
``.name [key]``. The only calls are ``get(path)`` and ``/pattern/.test(text)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cloudlet.model.errors import InvalidRequest
from cloudlet.rules.ast import (
    Add,
    And,
    Compare,
    Expr,
    Get,
    In,
    Items,
    Known,
    Member,
    Name,
    Not,
    Operator,
    Or,
    Span,
    Test,
    children,
    walk,
)
from cloudlet.rules.lexer import Kind, RuleSyntax, Token, failure, tokens

EXPRESSION_LENGTH_MAX: Final = 1_024
GETS_MAX: Final = 3
GET_NESTING_MAX: Final = 2
DEPTH_MAX: Final = 24
REGEX_OPTIONS: Final = "imsu"

_EQUALITIES: Final = {"==": Operator.EQ, "!=": Operator.NE}
_RELATIONS: Final = {">": Operator.GT, ">=": Operator.GE, "<": Operator.LT, "<=": Operator.LE}
_LITERALS: Final = {"true": True, "false": False, "null": None, "undefined": None}
_WORDS: Final = {"and": "&&", "or": "||", "not": "!", "typeof": "a comparison with null"}
_METHODS: Final = {"includes": "x in list", "indexOf": "x in list", "match": "/pattern/.test(text)"}


@dataclass(frozen=True, slots=True)
class Language:
    """What the rules of one service may use. ``check_pattern`` raises InvalidRequest for a regular expression
    that is not understood or could take too long.
    """

    variables: frozenset[str]
    check_pattern: Callable[[str, str], None]
    gets: bool = True


def parse(source: str, language: Language) -> Expr:
    """The tree of an expression. Raises RuleSyntax that names the place and what to write instead."""
    if len(source) > EXPRESSION_LENGTH_MAX:
        raise RuleSyntax(f"an expression may have {EXPRESSION_LENGTH_MAX} characters, not {len(source)}")
    if not source.strip():
        raise RuleSyntax("the expression is empty; write true or false")
    expr = _Parser(source, language, tokens(source)).whole()
    _check_gets(expr)
    return expr


def _check_gets(expr: Expr) -> None:
    found = [item for item in walk(expr) if isinstance(item, Get)]
    if len(found) > GETS_MAX:
        raise failure(found[GETS_MAX].span.start, f"an expression may call get() {GETS_MAX} times")
    for item in found:
        if _get_depth(item) > GET_NESTING_MAX:
            raise failure(item.span.start, f"get() may be nested {GET_NESTING_MAX} deep")


def _get_depth(expr: Expr) -> int:
    below = max((_get_depth(child) for child in children(expr)), default=0)
    return below + isinstance(expr, Get)


@dataclass(slots=True)
class _Parser:
    source: str
    language: Language
    tokens: list[Token]
    at: int = 0
    depth: int = field(default=0)

    def whole(self) -> Expr:
        expr = self.any_of()
        if self.token.kind is not Kind.END:
            raise self.unexpected("an operator such as && or ==")
        return expr

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def take(self, *symbols: str) -> Token | None:
        token = self.token
        if token.kind is Kind.SYMBOL and token.value in symbols:
            self.at += 1
            return token
        return None

    def expect(self, symbol: str) -> Token:
        token = self.take(symbol)
        if token is None:
            raise self.unexpected(symbol)
        return token

    def unexpected(self, wanted: str) -> RuleSyntax:
        token = self.token
        if token.kind is Kind.END:
            return failure(token.span.start, f"the expression ends where {wanted} was expected")
        shown = token.span.of(self.source)[:40]
        hint = _WORDS.get(shown) if token.kind is Kind.NAME else None
        if hint:
            return failure(token.span.start, f"write {hint} instead of {shown}")
        return failure(token.span.start, f"{wanted} was expected, not {shown}")

    def any_of(self) -> Expr:
        if self.depth >= DEPTH_MAX:
            raise failure(self.token.span.start, f"expressions may be nested {DEPTH_MAX} deep")
        self.depth += 1
        operands = [self.all_of()]
        while self.take("||"):
            operands.append(self.all_of())
        self.depth -= 1
        return operands[0] if len(operands) == 1 else Or(tuple(operands), _around(operands))

    def all_of(self) -> Expr:
        operands = [self.equality()]
        while self.take("&&"):
            operands.append(self.equality())
        return operands[0] if len(operands) == 1 else And(tuple(operands), _around(operands))

    def equality(self) -> Expr:
        left = self.relation()
        while token := self.take(*_EQUALITIES):
            right = self.relation()
            left = Compare(_EQUALITIES[token.value], left, right, _around([left, right]))
        return left

    def relation(self) -> Expr:
        left = self.sum()
        while True:
            if token := self.take(*_RELATIONS):
                right = self.sum()
                left = Compare(_RELATIONS[token.value], left, right, _around([left, right]))
            elif self.token.kind is Kind.NAME and self.token.value == "in":
                self.at += 1
                right = self.sum()
                left = In(left, right, _around([left, right]))
            else:
                return left

    def sum(self) -> Expr:
        left = self.unary()
        while self.take("+"):
            right = self.unary()
            left = Add(left, right, _around([left, right]))
        if self.token.kind is Kind.SYMBOL and self.token.value == "-":
            raise failure(self.token.span.start, "there is no subtraction; write + -1 to subtract a number")
        return left

    def unary(self) -> Expr:
        negations: list[Token] = []
        while token := self.take("!"):
            negations.append(token)
        if len(negations) > DEPTH_MAX:
            raise failure(negations[0].span.start, f"expressions may be nested {DEPTH_MAX} deep")
        expr = self.signed()
        for token in reversed(negations):
            expr = Not(expr, Span(token.span.start, expr.span.end))
        return expr

    def signed(self) -> Expr:
        minus = self.take("-")
        if minus is None:
            return self.postfix()
        token = self.token
        if token.kind is not Kind.NUMBER:
            raise self.unexpected("a number after -")
        self.at += 1
        return Known(-token.value, Span(minus.span.start, token.span.end), written=True)

    def postfix(self) -> Expr:
        expr = self.primary()
        while True:
            if self.take("."):
                expr = self.member(expr)
            elif self.take("["):
                key = self.any_of()
                end = self.expect("]").span.end
                expr = Member(expr, key, Span(expr.span.start, end))
            elif self.token.kind is Kind.SYMBOL and self.token.value == "(":
                raise failure(expr.span.start, _call_hint(expr))
            else:
                return expr

    def member(self, expr: Expr) -> Expr:
        token = self.token
        if token.kind is not Kind.NAME:
            raise self.unexpected("a field name after the dot")
        self.at += 1
        key = Known(token.value, token.span, written=True)
        return Member(expr, key, Span(expr.span.start, token.span.end))

    def primary(self) -> Expr:
        token = self.token
        match token.kind:
            case Kind.NUMBER | Kind.STRING:
                self.at += 1
                return Known(token.value, token.span, written=True)
            case Kind.TEMPLATE:
                self.at += 1
                return self.template(token)
            case Kind.REGEX:
                self.at += 1
                return self.test(token)
            case Kind.NAME:
                return self.name(token)
        if self.take("("):
            expr = self.any_of()
            self.expect(")")
            return expr
        if self.take("["):
            return self.items(token)
        raise self.unexpected("a value")

    def name(self, token: Token) -> Expr:
        name = token.value
        if name in _WORDS or name == "in":
            raise self.unexpected("a value")
        self.at += 1
        if name in _LITERALS:
            return Known(_LITERALS[name], token.span, written=True)
        if name == "get" and self.language.gets:
            self.expect("(")
            path = self.any_of()
            return Get(path, Span(token.span.start, self.expect(")").span.end))
        if name not in self.language.variables:
            known = ", ".join(sorted(self.language.variables))
            raise failure(
                token.span.start,
                f"{name[:40]} is not a variable; there are {known} (text is written '{name[:40]}')",
            )
        return Name(name, token.span)

    def items(self, start: Token) -> Expr:
        found: list[Expr] = []
        while True:
            if not found and (end := self.take("]")):
                break
            found.append(self.any_of())
            if self.take(","):
                continue
            end = self.expect("]")
            break
        return Items(tuple(found), Span(start.span.start, end.span.end))

    def template(self, token: Token) -> Expr:
        expr: Expr = Known("", token.span, written=True)
        for part in token.value:
            if isinstance(part, Span):
                inner = _Parser(
                    self.source, self.language, tokens(self.source, part.start, part.end), 0, self.depth
                )
                expr = Add(expr, inner.whole(), token.span, text=True)
            elif part:
                expr = Add(expr, Known(part, token.span, written=True), token.span, text=True)
        return expr

    def test(self, token: Token) -> Expr:
        pattern, options = token.value
        start = token.span.start
        if not self.take(".") or self.token.value != "test":
            raise failure(start, "a regular expression is used as /pattern/.test(text)")
        self.at += 1
        if not set(options) <= set(REGEX_OPTIONS):
            raise failure(start, f"options of a regular expression are letters of {REGEX_OPTIONS}")
        options = "".join(sorted(set(options)))
        try:
            self.language.check_pattern(pattern, options)
        except InvalidRequest as exc:
            raise failure(start, exc.message) from exc
        self.expect("(")
        subject = self.any_of()
        end = self.expect(")").span.end
        return Test(pattern, options, subject, Span(start, end))


def _around(operands: list[Expr]) -> Span:
    return Span(operands[0].span.start, operands[-1].span.end)


def _call_hint(expr: Expr) -> str:
    if isinstance(expr, Member) and isinstance(expr.key, Known):
        instead = _METHODS.get(str(expr.key.value))
        if instead:
            return f"there are no methods; write {instead} instead of .{expr.key.value}()"
    return "only get('database.collection.id') and /pattern/.test(text) can be called"
