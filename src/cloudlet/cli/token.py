"""``cloudlet token``."""

from __future__ import annotations

import click

from cloudlet.model.ids import DEFAULT_ENVIRONMENT

from .client import environment_path
from .session import Session, command_options


@click.command()
@click.option("--openid", required=True, help="Who to sign in as; letters must be in it.")
@click.option("--env", default=DEFAULT_ENVIRONMENT, show_default=True, help="Environment or alias.")
@click.option("--appid", default="", help="The mini program's id that functions see.")
@click.option("--unionid", default="", help="The union id that functions see.")
@command_options
def token(session: Session, openid: str, env: str, appid: str, unionid: str) -> None:
    """Get an access token of a user, as a sign-in gives it. The user is made when it is new.

    \b
    Examples:
      cloudlet token --openid user-a
      curl -H "Authorization: Bearer $(cloudlet token --openid user-a)" \\
           -d '{}' http://127.0.0.1:8787/v1/functions/login
    """
    body = {
        "openid": openid,
        **({"appid": appid} if appid else {}),
        **({"unionid": unionid} if unionid else {}),
    }
    answer = session.client().post(environment_path(env, "tokens"), body)
    session.show(answer, lambda: str(answer["access_token"]))
