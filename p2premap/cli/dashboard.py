"""The page in a browser: `dashboard`."""

from __future__ import annotations

import shlex

import click

from p2premap.cli.show import clean, json_option, print_json, say
from p2premap.client.amounts import duration
from p2premap.client.connection import local
from p2premap.control.web import OpenWeb, WebOpened

OPEN_S = 30.0


@click.command()
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser, too.")
@click.option("--revoke", is_flag=True, help="Make a new token first: links, cookies and the old token are void.")
@click.option("--shell", is_flag=True, help="Print settings of SITE and AUTH for a shell and curl (docs/curl.md).")
@json_option
@click.pass_obj
def dashboard(node: str, open_it: bool, revoke: bool, shell: bool, as_json: bool) -> None:
    """Print a link that logs a browser in.

    To the page that shows the cluster, which this node then serves to this machine. The link works once. Programs use
    the API behind it (docs/api.md).
    """
    with local(node) as connection:
        opened = connection.ask(lambda n: OpenWeb(request=n, revoke=revoke), WebOpened, timeout_s=OPEN_S)
    url = f"{opened.origins[0]}/login?ticket={opened.ticket}"
    if as_json:
        print_json(
            {
                "url": url,
                "origins": list(opened.origins),
                "expires_s": opened.valid_s,
                "token_file": opened.token_file,
                "header_file": opened.header_file,
                "authority_file": opened.authority_file,
            }
        )
    elif shell:
        site = next(origin for origin in opened.origins if "//127.0.0.1:" in origin)  # not every resolver knows others
        click.echo(f"SITE={shlex.quote(site)}; AUTH={shlex.quote(opened.header_file)}")
    else:
        click.echo(clean(url))
        say(f"Open this link in a browser on this machine; it works once, within {duration(opened.valid_s)}.")
        if opened.authority_file:
            lan = next((origin for origin in opened.origins if origin.startswith("https:")), "")
            say(f"From another machine: {clean(lan)}/login?ticket={opened.ticket}")
            say(f"Its browser has to be told once to trust the certificate in {clean(opened.authority_file)}.")
    if open_it:
        import webbrowser

        webbrowser.open(url)
