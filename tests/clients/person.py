"""The person at the browser, and what a client keeps of its login, for the Python SDKs."""

import html
import re
import urllib.error
import urllib.parse
import urllib.request


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


BACK = "http://127.0.0.1:4711/callback"


def log_in(address: str, user: str) -> dict[str, str]:
    """Opens the login page, chooses a user, consents, and is sent back. Gives what the client hears."""
    asked = urllib.parse.urlsplit(address)
    origin = f"{asked.scheme}://{asked.netloc}"
    # Of this browser alone.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), NoRedirect, urllib.request.HTTPCookieProcessor()
    )

    def opened(url: str, form: dict[str, str] | None = None):
        body = urllib.parse.urlencode(form).encode() if form else None
        try:
            return opener.open(url, body, timeout=30)
        except urllib.error.HTTPError as answer:
            assert answer.code in (302, 303), answer.read()
            return answer

    url, answer = address, opened(address)
    for _ in range(10):
        if location := answer.headers["location"]:
            url = urllib.parse.urljoin(url, location)
            if not url.startswith(f"{origin}/"):
                heard = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
                assert heard["iss"] == origin, heard
                return heard
            answer = opened(url)
            continue
        page = answer.read().decode()
        url = urllib.parse.urljoin(url, re.search('<form[^>]* action="([^"]*)"', page)[1])
        hidden = re.findall('type="hidden" name="([^"]*)" value="([^"]*)"', page)
        form = {name: html.unescape(value) for name, value in hidden}
        answer = opened(url, form | {"user": user, "answer": "allow", "login": user, "password": "p"})
    raise AssertionError("the login does not end")


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
        self.asked = urllib.parse.parse_qs(urllib.parse.urlsplit(address).query)["scope"][0]
        self.heard = log_in(address, self.user)

    def shown(self, tools, before, after, further=None) -> dict:
        stepped_up = {"stepped_up": {"asked": self.asked, "seen": further}} if further else {}
        return stepped_up | {
            "tools": [tool.name for tool in tools],
            "rows": before["rows"],
            "rows_after_refresh": after["rows"],
            "logins": self.logins,
            "tokens": len(self.given),
            "rotated": self.given[0].refresh_token != self.given[-1].refresh_token,
            "client_id": self.client.client_id,
        }
