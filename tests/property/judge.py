"""What may never come of a request, whatever it was."""
import json
import re

INCLUDES = {role: {"viewer", role} for role in ("viewer", "auditor", "restorer", "operator")} | {"admin": {"viewer", "auditor", "restorer", "operator", "admin"}, "none": set()}
GATE = {400, 408, 413, 431, 501, 505}  # refused before an operation was reached: info.description of openapi.yaml
ALWAYS = {"loginDelete"}  # about the caller himself: no scope keeps him from it
JSON = ("application/json", "application/merge-patch+json")


def origin(target):
    """What the absolute form asks for (RFC 9112 3.2.2)."""
    path = re.sub(r"(?i)^https?://[^/?#@]+(?=[/?#]|$)", "", target)
    return path if path == target or path.startswith("/") else "/" + path


def unexpected(request, status, body):
    """Is it the answer to an Expect that nobody here meets (info.description of openapi.yaml)?"""
    asked = [value for name, value in request.headers if name == "Expect"]
    return status == 417 and asked and asked != ["100-continue"] and (request.method == "HEAD" or json.loads(body)["hint"])


def unique(pairs):
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a member twice")
    return dict(pairs)


def no_constant(text):
    raise ValueError(text)


def strict(body):
    """(is it JSON, its value): one member of a name, no lone surrogates, nothing that is only Python's."""
    try:
        value = json.loads(body.decode(), object_pairs_hook=unique, parse_constant=no_constant)
        json.dumps(value, ensure_ascii=False).encode()
        return True, value
    except (ValueError, RecursionError):
        return False, None


class Judge:
    """`secrets`: {caller: words that he may not hear}; `hidden`: {caller: ids of objects that do not exist for him}."""

    def __init__(self, contract, roles, secrets, hidden):
        self.contract, self.roles, self.secrets, self.hidden = contract, roles, secrets, hidden

    def operation(self, request):
        _, item = self.contract.path(origin(request.target))
        return (item or {}).get("get" if request.method == "HEAD" else request.method.lower())

    def faults(self, request, status, headers, body):
        """Words for what is wrong; none when all is well."""
        operation = self.operation(request)
        found = [self.schema(request, operation, status, headers, body)]
        if status >= 500 and status not in (501, 503, 505):
            found.append(f"a {status}")
        if operation and 200 <= status < 400:
            found.append(self.allowed(request, operation, status))
            found.append(self.argued(request, operation))
        found.append(self.told(request, status, headers, body))
        return [fault for fault in found if fault]

    def schema(self, request, operation, status, headers, body):
        try:
            if self.gate(status, body):
                self.contract.check_problem(status, dict(headers), body, "the gate")
                return None
            if unexpected(request, status, body) or (request.method == "HEAD" and status in GATE and not operation):
                return None
            value = strict(request.body)[1] if request.body.strip() else None
            self.contract.check(request.method, origin(request.target), status, headers, body, value)
        except AssertionError as off:
            return str(off)
        return None

    @staticmethod
    def gate(status, body):
        """Refused by its framing: such a problem has a reason and no instance."""
        if status not in GATE or not body.startswith(b"{"):
            return False
        problem = json.loads(body)
        return problem.get("instance") == "" and bool(problem.get("reason"))

    def allowed(self, request, operation, status):
        least = operation.get("x-role", [])
        least = {least} if isinstance(least, str) else set(least)
        role = self.roles[request.caller]
        if least and not least & INCLUDES[role]:
            return f"{status} for {role}, though it needs {sorted(least)}"
        if request.caller == "scoped" and least and request.method not in ("GET", "HEAD") and operation["operationId"] not in ALWAYS:
            return f"{status}, though the token's scope is read"
        return None

    @staticmethod
    def argued(request, operation):
        """A body that nobody should have taken."""
        if "requestBody" not in operation or not request.body.strip():
            return None
        media = [value.split(";")[0].strip().lower() for name, value in request.headers if name == "Content-Type"]
        if not media or media[0] not in JSON:
            return f"a body of type {media} was taken"
        return None if strict(request.body)[0] else "a body that is no JSON was taken"

    def told(self, request, status, headers, body):
        said = body + "\n".join(f"{name}: {value}" for name, value in headers).encode("latin-1", "replace")
        for word in self.secrets[request.caller]:
            if word.encode() in said:
                return f"{request.caller} heard {word}"
        for identity in self.hidden[request.caller]:
            if identity in request.target:
                if 200 <= status < 300 and request.method != "OPTIONS" or status in (304, 409, 410):  # 412 is what an unknown one gets, too
                    return f"{status} tells {request.caller} that {identity} is there"
            elif identity.encode() in said and identity.encode() not in request.body:
                return f"{request.caller} heard the id {identity}"
        return None
