"""A client of the HTTP API, for the tests on harness.py."""

import http.client
import json
import urllib.parse

from harness import check, equal


class Client:
    """One connection to a node, kept alive."""

    def __init__(self, node, timeout=60):
        self.node, self.timeout = node, timeout
        self.link = None

    def ask(self, method, target, body=None, headers=None):
        """The answer; its text is in .text."""
        if self.link is None:
            self.link = http.client.HTTPConnection(self.node.http, timeout=self.timeout)
        if isinstance(body, (list, dict)):
            body = json.dumps(body)
        try:
            self.link.request(method, target, body, headers or {})
            answer = self.link.getresponse()
            answer.text = answer.read().decode()
            return answer
        except Exception:
            self.link.close()
            self.link = None
            raise

    def json(self, method, target, body=None, headers=None):
        answer = self.ask(method, target, body, headers)
        equal(answer.status, 200, f"status of {method} {target} ({answer.text})")
        equal(answer.headers["Content-Type"], "application/json; charset=utf-8", "content type")
        return json.loads(answer.text)

    def execute(self, *statements, **flags):
        return self.json("POST", target("/db/execute", flags), list(statements))

    def request(self, *statements, **flags):
        return self.json("POST", target("/db/request", flags), list(statements))

    def query(self, sql, **flags):
        return self.json("GET", target("/db/query", {**flags, "q": sql}))

    def values(self, sql, **flags):
        result = self.query(sql, **flags)["results"][0]
        check("error" not in result, f"{sql}: {result}")
        return result.get("values", [])


def target(path, flags):
    """Flags that are True are given without a value."""
    pairs = [key if flag is True else f"{key}={urllib.parse.quote(str(flag))}" for key, flag in flags.items()]
    return path + ("?" + "&".join(pairs) if pairs else "")


def result(answer):
    equal(len(answer["results"]), 1, f"results of {answer}")
    return answer["results"][0]
