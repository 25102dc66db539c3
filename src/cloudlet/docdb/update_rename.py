"""``$rename``: a field leaves one path and arrives at another. Manual: "$rename"."""

from __future__ import annotations

from dataclasses import dataclass

from cloudlet.docdb.paths import Segments
from cloudlet.docdb.update_errors import Code, refused, shown
from cloudlet.docdb.update_paths import is_dynamic, update_path
from cloudlet.docdb.update_tree import Blocked, Context, Leaf
from cloudlet.docdb.values import MISSING, Value


@dataclass(frozen=True, slots=True)
class Rename:
    """One renaming."""

    source_text: str
    source: Segments
    target_text: str
    target: Segments

    def value(self, context: Context) -> Value:
        """What moves, or MISSING. Raises InvalidUpdate if an array is on either way."""
        value: Value = context.document
        for at, (name, _) in enumerate(self.source):
            if type(value) is list:
                raise self._array("source", self.source_text, self.source[at - 1][0], context)
            if type(value) is not dict:
                raise refused(
                    Code.PathNotViable,
                    f"cannot use the part ({self.source[at - 1][0][:80]} of {self.source_text[:200]}) "
                    f"to traverse the element ({shown(self.source[at - 1][0], value)})",
                )
            value = value.get(name, MISSING)
            if value is MISSING:
                return MISSING
        self._check_target(context)
        return value

    def removal(self) -> Leaf:
        """What happens at the old path."""
        return Leaf(self.source_text, lambda _, __: MISSING, Blocked.IGNORED)

    def arrival(self) -> Leaf:
        """What happens at the new path."""
        path = self.target_text

        def change(old: Value, context: Context) -> Value:
            value = context.moved[path]
            return old if value is MISSING else value

        return Leaf(path, change)

    def _check_target(self, context: Context) -> None:
        value: Value = context.document
        for at, (name, _) in enumerate(self.target):
            if type(value) is list:
                raise self._array("destination", self.target_text, self.target[at - 1][0], context)
            value = value.get(name, MISSING) if type(value) is dict else MISSING

    def _array(self, which: str, path: str, name: str, context: Context) -> Exception:
        return refused(
            Code.BadValue,
            f"The {which} field cannot be an array element, '{path[:200]}' in doc with "
            f"{context.place()} has an array field called '{name[:80]}'",
        )


def parse_rename(path: str, operand: Value) -> Rename:
    """Raises InvalidUpdate."""
    if type(operand) is not str:
        raise refused(Code.BadValue, f"The 'to' field for $rename must be a string: {shown(path, operand)}")
    for which, text in (("source", path), ("destination", operand)):
        if any(is_dynamic(name) for name in text.split(".")):
            raise refused(Code.BadValue, f"The {which} field for $rename may not be dynamic: {text[:200]}")
    source, target = update_path(path, {}), update_path(operand, {})
    if source == target:
        raise refused(
            Code.BadValue, f"The source and target field for $rename must differ: {shown(path, operand)}"
        )
    shared = min(len(source), len(target))
    if source[:shared] == target[:shared]:
        raise refused(
            Code.BadValue,
            f"The source and target field for $rename must not be on the same path: {shown(path, operand)}",
        )
    return Rename(path, source, operand, target)
