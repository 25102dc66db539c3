"""``cloudlet completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .session import Session, command_options

VARIABLE = "_CLOUDLET_COMPLETE"
"""Through it a shell asks for words (click's convention)."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@command_options
def completion(session: Session, shell: str) -> None:
    """Print a script that lets a shell complete words: commands, options, names of functions.

    \b
    Examples:
      echo 'eval "$(cloudlet completion bash)"' >> ~/.bashrc
      echo 'eval "$(cloudlet completion zsh)"' >> ~/.zshrc
      cloudlet completion fish > ~/.config/fish/completions/cloudlet.fish
    """
    script = completion_script(shell)
    session.show({"shell": shell, "script": script}, lambda: script)


def completion_script(shell: str) -> str:
    """The script for one of the shells."""
    from .main import cloudlet

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"there is no completion for {shell}")
    complete = found(cloudlet, {}, "cloudlet", VARIABLE)
    # Not `source()`: it starts the shell to look at its version, which need not be installed here.
    return complete.source_template % complete.source_vars()
