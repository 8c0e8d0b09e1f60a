"""A client of the Admin API for tests: one kept connection, replies as they are."""

import http.client
import json
import ssl
import urllib.parse


class Reply:
    def __init__(self, raw):
        self.status = raw.status
        self.headers = raw.headers
        self.text = raw.read()

    @property
    def json(self):
        return json.loads(self.text)

    def ok(self):
        assert self.status == 200, (self.status, self.text[:500])
        return self.json

    def error(self, status):
        """The error's message, of whatever shape, after checking the status."""
        assert self.status == status, (self.status, self.text[:500])
        assert self.headers["x-request-id"]
        e = self.json["error"]
        return e if isinstance(e, str) else e["message"]


class AdminApi:
    def __init__(self, url, key, ca=None, project="proj_abc", seconds=30):
        self.parts = urllib.parse.urlsplit(url)
        self.key, self.project = key, project
        self.context = ssl.create_default_context(cafile=ca)
        self.seconds = seconds
        self.connection = None

    def connect(self):
        where = (self.parts.hostname, self.parts.port)
        if self.parts.scheme == "https":
            return http.client.HTTPSConnection(*where, context=self.context, timeout=self.seconds)
        return http.client.HTTPConnection(*where, timeout=self.seconds)

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def call(self, method, path, body=None, key=None, headers=None):
        """No retry. key "" sends no bearer; body: JSON, or bytes as they are."""
        self.connection = self.connection or self.connect()
        send = dict(headers or {})
        key = self.key if key is None else key
        if key:
            send["Authorization"] = "Bearer " + key
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            send.setdefault("Content-Type", "application/json")
        try:
            self.connection.request(method, self.parts.path + path, body, send)
            return Reply(self.connection.getresponse())
        except Exception:
            self.close()
            raise

    def get(self, path, **options):
        return self.call("GET", path, **options)

    def post(self, path, body=None, **options):
        return self.call("POST", path, body, **options)

    def delete(self, path, **options):
        return self.call("DELETE", path, **options)

    def all(self, path, limit=100):
        """Every item of a list, page after page."""
        items, after = [], ""
        while True:
            page = self.get(f"{path}{'&' if '?' in path else '?'}limit={limit}{after}").ok()
            assert page["object"] == "list" and len(page["data"]) <= limit
            items += page["data"]
            if not page["has_more"]:
                return items
            assert page["data"], "more is said to follow an empty page"
            cursor = page.get("last_id") or page["data"][-1]["id"]
            assert f"&after={cursor}" != after
            after = f"&after={cursor}"

    @property
    def accounts(self):
        return f"/organization/projects/{self.project}/service_accounts"

    @property
    def keys(self):
        return f"/organization/projects/{self.project}/api_keys"

    def mint(self, name="contract", **fields):
        return self.post(self.accounts, {"name": name, **fields}).ok()

    def works(self, key):
        return self.get("/models", key=key).status == 200
