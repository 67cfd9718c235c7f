"""Holds requests and replies against openapi.yaml: path, method, status, headers and schemas must be in the contract.

    contract = Contract("openapi.yaml")
    contract.check("POST", "/sessions?x=1", 201, headers, body)   # AssertionError tells what is off

A reply that no operation can describe is held against the contract's own words: an unknown path is a 404 problem (or 401), a known
path with another method a 405 problem whose Allow names exactly the path's methods, OPTIONS a 204 with that Allow, an over-long head
a 431 problem, too many requests or wrong credentials a 429 problem.
"""
import json
import re
import urllib.parse

import yaml
from jsonschema import Draft202012Validator, RefResolver

METHODS = ("get", "put", "post", "delete", "patch")
PROBLEM = "application/problem+json"


class Contract:
    def __init__(self, openapi_path):
        with open(openapi_path, encoding="utf-8") as file:
            self.document = yaml.safe_load(file)
        self.resolver = RefResolver("", self.document)
        self.paths = []
        for template, item in self.document["paths"].items():
            parts = re.split(r"\{[^/}]+\}", template)
            self.paths.append((len(parts), re.compile("([^/]+)".join(map(re.escape, parts))), template, item))
        self.paths.sort(key=lambda path: path[0])  # literal paths before templates

    def resolve(self, node):
        while isinstance(node, dict) and "$ref" in node:
            node = self.resolver.resolve(node["$ref"])[1]
        return node

    def path(self, target):
        """The template and item of a request target; (None, None) when it is unknown."""
        for _, pattern, template, item in self.paths:
            found = pattern.fullmatch(target.split("?")[0])
            if found:
                return (template, item) if all(map(self.plain, found.groups())) else (None, None)
        return None, None

    @staticmethod
    def plain(part):
        """Is this part of a path one name, as info.description has it?"""
        if re.search("%(?![0-9A-Fa-f]{2})", part):
            return False
        try:
            name = urllib.parse.unquote(part, errors="strict")
        except UnicodeDecodeError:
            return False
        return "/" not in name and name not in (".", "..") and not re.search("[\x00-\x1f\x7f]", name)

    def operations(self):
        """Every (method, template, operation) of the contract."""
        return [(method.upper(), template, item[method]) for _, _, template, item in self.paths for method in METHODS
                if method in item]

    @staticmethod
    def allow(item):
        methods = {method.upper() for method in METHODS if method in item}
        return methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())

    # --- checks --------------------------------------------------------------------------------------------------
    def check_schema(self, schema, value, where):
        validator = Draft202012Validator(schema, resolver=self.resolver)
        faults = [f"/{'/'.join(map(str, fault.absolute_path))}: {fault.message[:300]}" for fault in validator.iter_errors(value)]
        assert not faults, f"{where}: off its schema: {faults[:5]}"

    def check_problem(self, status, headers, body, where):
        media = headers.get("content-type", "").split(";")[0]
        assert media == PROBLEM, f"{where}: content type {media!r}, not {PROBLEM}"
        problem = json.loads(body)
        self.check_schema({"$ref": "#/components/schemas/Problem"}, problem, where)
        assert problem["status"] == status, f"{where}: the body says {problem['status']}"
        assert problem["request_id"] == headers.get("x-request-id"), f"{where}: request_id is not X-Request-Id"

    def check_headers(self, answer, headers, where):
        for name, header in (answer.get("headers") or {}).items():
            header = self.resolve(header)
            value = headers.get(name.lower())
            if value is None:
                assert not header.get("required"), f"{where}: header {name} is missing"
                continue
            schema = header["schema"]
            if self.resolve(schema).get("type") == "integer":
                assert re.fullmatch(r"-?\d+", value), f"{where}: header {name}: {value!r} is no integer"
                value = int(value)
            self.check_schema(schema, value, f"{where}: header {name}")

    def check_undescribed(self, method, item, status, headers, body, where, path=""):
        """Replies that belong to no operation."""
        files = path.startswith(("/ui/", "/docs/"))  # whatever they are called
        item = {"get": {}} if files else item
        if status == 429:
            assert headers.get("retry-after", "").isdigit(), f"{where}: Retry-After"
        elif item is None or (files and method in ("GET", "HEAD")):
            assert status in (401, 404) or (status == 400 and "%00" in where), f"{where}: an unknown path"  # %00: the framing gate
        elif method == "OPTIONS":
            assert status in (204, 401), f"{where}: OPTIONS"
        else:
            assert status in (401, 405), f"{where}: a method that the path does not have"
        if status in (204, 405):
            allow = {name.strip() for name in headers.get("allow", "").split(",")}
            assert allow == self.allow(item), f"{where}: Allow is {sorted(allow)}, not {sorted(self.allow(item))}"
        if status == 401:
            assert headers.get("www-authenticate", "").startswith("Bearer"), f"{where}: WWW-Authenticate"
        if status == 204:
            assert not body, f"{where}: a 204 with a body"
        elif method != "HEAD":
            self.check_problem(status, headers, body, where)

    def check_request(self, operation, request_body, where):
        """A request that was accepted must have been one that the contract takes."""
        if request_body is None or request_body in (b"", ""):
            return
        request = self.resolve(operation.get("requestBody"))
        assert request, f"{where}: the operation takes no body"
        value = json.loads(request_body) if isinstance(request_body, (bytes, str)) else request_body
        self.check_schema(next(iter(request["content"].values()))["schema"], value, f"{where}: request")

    def check_body(self, method, status, answer, headers, body, where):
        content = answer.get("content")
        if not content:
            assert not body, f"{where}: a body that is not in the contract: {body[:200]!r}"
            return
        media = headers.get("content-type", "").split(";")[0]
        assert media in content, f"{where}: content type {media!r} is not in the contract ({', '.join(content)})"
        if method == "HEAD":
            assert not body, f"{where}: HEAD with a body"
        elif media == PROBLEM:
            self.check_problem(status, headers, body, where)
        elif media.endswith(("/json", "+json")):
            schema = content[media]["schema"]
            self.check_schema(self.sparse(schema) if "fields=" in where else schema, json.loads(body), where)

    def sparse(self, schema):
        """With ?fields= no member of an item must be there."""
        schema = self.resolve(schema)
        properties = schema.get("properties", {})
        if {"items", "next_cursor"} <= set(properties):
            items = self.resolve(properties["items"])
            return {**schema, "properties": {**properties, "items": {**items, "items": self.sparse(items["items"])}}}
        return {**{name: value for name, value in schema.items() if name != "required"},
                **({"allOf": [self.sparse(part) for part in schema["allOf"]]} if "allOf" in schema else {})}

    def check(self, method, path, status, headers, body_bytes, request_body=None):
        """headers: a mapping, or pairs; names of any case. request_body (bytes, text or a value): held against the contract when
        the reply is a success."""
        pairs = headers.items() if hasattr(headers, "items") else headers
        headers = {name.lower(): value for name, value in pairs}
        where = f"{method} {path} -> {status}"
        _, item = self.path(path)
        operation = (item or {}).get("get" if method == "HEAD" else method.lower())
        if status == 431:
            self.check_problem(status, headers, body_bytes, where)
            return
        if operation is None:
            self.check_undescribed(method, item, status, headers, body_bytes, where, path)
            return
        responses = {str(code): answer for code, answer in operation["responses"].items()}
        assert str(status) in responses, f"{where}: status not in the contract ({', '.join(responses)}): {body_bytes[:500]!r}"
        answer = self.resolve(responses[str(status)])
        self.check_headers(answer, headers, where)
        self.check_body(method, status, answer, headers, body_bytes, where)
        if 200 <= status < 300:
            self.check_request(operation, request_body, where)
