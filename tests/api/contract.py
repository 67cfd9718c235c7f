"""Holds a reply against openapi.yaml: path, method, status, headers and schema must be in the contract."""
import json
import re

import yaml
from jsonschema import Draft202012Validator, RefResolver

METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


class Contract:
    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.document = yaml.safe_load(file)
        self.resolver = RefResolver("", self.document)
        self.routes = []
        for template, operations in self.document["paths"].items():
            pattern = re.compile("^" + re.sub(r"\\{[^/]+\\}|\{[^/]+?\}", "[^/]+", template.replace(".", r"\.")) + "$")
            self.routes.append((template.count("{"), pattern, template, operations))
        self.routes.sort(key=lambda route: route[0])  # literal paths before templates

    def resolve(self, node):
        while isinstance(node, dict) and "$ref" in node:
            node = self.resolver.resolve(node["$ref"])[1]
        return node

    def operation(self, method, path):
        for _, pattern, template, operations in self.routes:
            if pattern.match(path.split("?")[0]):
                return template, operations.get(method.lower())
        return None, None

    def check(self, method, path, status, headers, body):
        """headers: lower-case names. Raises AssertionError with what is off."""
        template, operation = self.operation("get" if method == "HEAD" else method, path)
        where = f"{method} {path} -> {status}"
        if operation is None:  # not in the contract: only 404, 405 and OPTIONS' answer may come
            assert status in (401, 404, 405) or method == "OPTIONS", f"{where}: not in the contract"
            return
        responses = {str(code): answer for code, answer in operation["responses"].items()}
        answer = responses.get(str(status)) or responses.get("default")
        assert answer, f"{where}: status not in the contract ({', '.join(responses)})"
        answer = self.resolve(answer)
        for name, header in (answer.get("headers") or {}).items():
            if self.resolve(header).get("required"):
                assert name.lower() in headers, f"{where}: header {name} is missing"
        content = answer.get("content")
        if method == "HEAD" or not content:
            assert method == "HEAD" or not body.strip(), f"{where}: a body that is not in the contract: {body[:200]!r}"
            return
        media = headers.get("content-type", "").split(";")[0]
        assert media in content, f"{where}: content type {media!r} is not in the contract ({', '.join(content)})"
        schema = content[media].get("schema")
        if schema is None or not media.endswith("json"):
            return
        validator = Draft202012Validator(schema, resolver=self.resolver)
        faults = [f"{'/'.join(map(str, fault.absolute_path))}: {fault.message[:300]}" for fault in validator.iter_errors(json.loads(body))]
        assert not faults, f"{where}: off its schema: {faults[:5]}"
