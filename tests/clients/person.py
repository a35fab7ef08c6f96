"""The person at the browser, and what a client keeps of its login, for the Python SDKs."""

import html
import re
import urllib.error
import urllib.parse
import urllib.request


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)
BACK = "http://127.0.0.1:4711/callback"


def log_in(address: str, user: str) -> dict[str, str]:
    """Opens the login page, chooses a user, and is sent back. Gives what the client hears."""
    page = OPENER.open(address, timeout=30).read().decode()

    def hidden(name: str) -> str:
        return html.unescape(re.search(f'name="{name}" value="([^"]*)"', page)[1])

    form = {"request": hidden("request"), "seal": hidden("seal"), "user": user, "answer": "allow"}
    body = urllib.parse.urlencode(form).encode()
    try:
        OPENER.open(urllib.parse.urljoin(address, "/authorize"), body, timeout=30)
    except urllib.error.HTTPError as answer:
        assert answer.code == 303, answer.read()
        location = urllib.parse.urlsplit(answer.headers["location"])
        heard = dict(urllib.parse.parse_qsl(location.query))
        asked = urllib.parse.urlsplit(address)
        assert heard["iss"] == f"{asked.scheme}://{asked.netloc}", heard
        return heard
    raise AssertionError("nobody was sent back")


class Kept:
    """A storage of the SDKs, in memory, and the two handlers of a login."""

    def __init__(self, user: str):
        self.user, self.tokens, self.client = user, None, None
        self.logins, self.given, self.heard = 0, [], {}

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens
        self.given.append(tokens)

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client

    async def open(self, address: str):
        self.logins += 1
        self.heard = log_in(address, self.user)

    def shown(self, tools, before, after) -> dict:
        return {
            "tools": [tool.name for tool in tools],
            "rows": before["rows"],
            "rows_after_refresh": after["rows"],
            "logins": self.logins,
            "tokens": len(self.given),
            "rotated": self.given[0].refresh_token != self.given[-1].refresh_token,
            "client_id": self.client.client_id,
        }
