#!/usr/bin/python3
"""Routes, roles, limits and request checks from openapi.yaml: openapi.gen.h, openapi.gen.c, openapi.json.

What the request side of the contract says is what the daemon checks: a schema keyword, parameter or reference that
this program cannot turn into a check is an error, never silently ignored. Error codes are checked against hresult.def.
"""
import argparse
import json
import pathlib
import re
import sys

import yaml

METHODS = ("get", "post", "put", "patch", "delete")
ROLES = {"viewer": "ROLE_VIEWER", "auditor": "ROLE_AUDITOR", "restorer": "ROLE_RESTORER", "operator": "ROLE_OPERATOR",
         "admin": "ROLE_ADMIN"}
KINDS = {"string": "JSON_KIND_STRING", "integer": "JSON_KIND_INTEGER", "number": "JSON_KIND_NUMBER",
         "boolean": "JSON_KIND_BOOLEAN", "object": "JSON_KIND_OBJECT", "array": "JSON_KIND_ARRAY", "null": "JSON_KIND_NULL"}
FORMATS = {"uuid": "JSON_FORMAT_UUID", "absolute-path": "JSON_FORMAT_PATH", "name": "JSON_FORMAT_NAME"}
ANNOTATIONS = {"title", "description", "default", "example", "examples", "deprecated"}
# Keyword -> the type that it belongs to; anything else in a request schema is refused.
BOUNDS = {"minimum": "integer", "maximum": "integer", "minLength": "string", "maxLength": "string",
          "minItems": "array", "maxItems": "array"}
CHECKS = {"type", "enum", "format", "properties", "required", "additionalProperties", "items"} | set(BOUNDS)
# Header parameters that code of the API knows.
READ_HEADERS = {"Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID", "Prefer"}
MERGE_PATCH = "application/merge-patch+json"
INT64_MIN, INT64_MAX = -2**63, 2**63 - 1


class ContractError(Exception):
    pass


def c_string(text):
    """A C string literal; other bytes than printable ASCII as octal, so that nothing depends on the source's charset."""
    out = []
    for byte in text.encode():
        char = chr(byte)
        if char in '"\\':
            out.append("\\" + char)
        elif char == "?":
            out.append("\\?")
        elif 32 <= byte < 127:
            out.append(char)
        elif char == "\n":
            out.append("\\n")
        else:
            out.append("\\%03o" % byte)
    return '"' + "".join(out) + '"'


def c_bytes(name, text):
    lines = "\n".join("    " + c_string(line) for line in text.splitlines(keepends=True))
    return f"const char {name}[] =\n{lines};\nconst size_t {name}_size = sizeof({name}) - 1;\n"


class Contract:
    def __init__(self, doc, codes):
        self.doc = doc
        self.codes = codes
        self.tables = []       # C text of the spec tables, leaves first
        self.named = {}        # canonical JSON of a schema -> C expression

    def resolve(self, node, where):
        seen = set()
        while "$ref" in node:
            ref = node["$ref"]
            if len(node) > 1:
                raise ContractError(f"{where}: members beside $ref")
            if not ref.startswith("#/") or ref in seen:
                raise ContractError(f"{where}: cannot follow {ref}")
            seen.add(ref)
            node = self.doc
            for part in ref[2:].split("/"):
                part = part.replace("~1", "/").replace("~0", "~")
                if part not in node:
                    raise ContractError(f"{where}: {ref} is not there")
                node = node[part]
        return node

    # --- request schemas ---------------------------------------------------------------------------------------
    def spec(self, schema, where):
        """C expression (a pointer) of the json_spec of a request schema."""
        schema = self.resolve(schema, where)
        key = json.dumps(schema, sort_keys=True)
        if key not in self.named:
            self.named[key] = self.emit(schema, where)
        return self.named[key]

    def emit(self, schema, where):
        unknown = set(schema) - CHECKS - ANNOTATIONS
        if unknown:
            raise ContractError(f"{where}: {', '.join(sorted(unknown))}: cannot be checked by the daemon")
        types = schema.get("type")
        types = [types] if isinstance(types, str) else types
        if not types or set(types) - set(KINDS):
            raise ContractError(f"{where}: needs a known type")
        fields = [".kinds = " + " | ".join(KINDS[name] for name in types)]
        fields += self.bounds(schema, types, where)
        if "format" in schema:
            if "string" not in types or schema["format"] not in FORMATS:
                raise ContractError(f"{where}: format {schema['format']} cannot be checked by the daemon")
            fields.append(".format = " + FORMATS[schema["format"]])
        if "enum" in schema:
            fields.append(".choices = " + self.choices(schema["enum"], types, where))
        fields += self.containers(schema, types, where)
        index = len(self.tables)
        self.tables.append(f"/* {where} */\nstatic const struct json_spec spec_{index} = {{\n    " + ",\n    ".join(fields) +
                           ",\n};")
        return f"&spec_{index}"

    def bounds(self, schema, types, where):
        for keyword, kind in BOUNDS.items():
            if keyword in schema and kind not in types:
                raise ContractError(f"{where}: {keyword} without type {kind}")
        bounded = [kind for kind in ("integer", "string", "array") if kind in types]
        if len(bounded) > 1:
            raise ContractError(f"{where}: {' and '.join(bounded)} in one schema cannot both be bounded")
        if not bounded:
            return []
        low, high = {"integer": ("minimum", "maximum"), "string": ("minLength", "maxLength"),
                     "array": ("minItems", "maxItems")}[bounded[0]]
        if high not in schema and "enum" not in schema:
            raise ContractError(f"{where}: {bounded[0]} without {high}")
        if high not in schema and low not in schema:
            return []
        least = schema.get(low, INT64_MIN if bounded[0] == "integer" else 0)
        most = schema.get(high, INT64_MAX)
        if not INT64_MIN <= least <= most <= INT64_MAX:
            raise ContractError(f"{where}: {low} {least} and {high} {most}")
        names = {INT64_MIN: "INT64_MIN", INT64_MAX: "INT64_MAX"}
        return [f".bounded = true, .min = {names.get(least, least)}, .max = {names.get(most, most)}"]

    def choices(self, values, types, where):
        if set(types) - {"string", "null"} or not all(isinstance(value, str) for value in values):
            raise ContractError(f"{where}: enum of anything but strings")
        index = len(self.tables)
        self.tables.append(f"static const char *const choices_{index}[] = {{" + ", ".join(map(c_string, values)) + ", NULL};")
        return f"choices_{index}"

    def containers(self, schema, types, where):
        fields = []
        for keyword in ("properties", "required", "additionalProperties"):
            if keyword in schema and "object" not in types:
                raise ContractError(f"{where}: {keyword} without type object")
        if "object" in types:
            fields += self.members(schema, where)
        if ("items" in schema) != ("array" in types):
            raise ContractError(f"{where}: items belongs to arrays, and each array needs it")
        if "items" in schema:
            fields.append(".items = " + self.spec(schema["items"], where + "/items"))
        return fields

    def members(self, schema, where):
        extra = schema.get("additionalProperties")
        if extra is None:
            raise ContractError(f"{where}: object without additionalProperties")
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if set(required) - set(properties):
            raise ContractError(f"{where}: required members that are not declared")
        fields = []
        if properties:
            rows = [(name, name in required, self.spec(member, f"{where}/{name}")) for name, member in properties.items()]
            index = len(self.tables)
            self.tables.append(f"static const struct json_member members_{index}[] = {{\n" + "".join(
                f"    {{{c_string(name)}, {'true' if needed else 'false'}, {spec}}},\n" for name, needed, spec in rows) + "};")
            fields.append(f".members = members_{index}, .n_members = {len(rows)}")
        if extra is True:
            fields.append(".open = true")
        elif extra is not False:
            fields.append(".open = true, .values = " + self.spec(extra, where + "/*"))
        return fields

    # --- operations --------------------------------------------------------------------------------------------
    def query(self, parameters, where):
        rows = []
        for parameter in parameters:
            name = parameter["name"]
            if set(parameter) - {"name", "in", "required", "description", "schema", "example"}:
                raise ContractError(f"{where}: parameter {name}: style and content cannot be checked by the daemon")
            types = self.resolve(parameter["schema"], where).get("type")
            if types not in ("string", "integer", "boolean", "array"):
                raise ContractError(f"{where}: query parameter {name} is a {types}")
            rows.append((name, parameter.get("required", False), self.spec(parameter["schema"], f"{where} ?{name}")))
        if not rows:
            return "NULL", 0
        index = len(self.tables)
        self.tables.append(f"static const struct api_parameter query_{index}[] = {{\n" + "".join(
            f"    {{{c_string(name)}, {'true' if needed else 'false'}, {spec}}},\n" for name, needed, spec in rows) + "};")
        return f"query_{index}", len(rows)

    def body(self, operation, where):
        if "requestBody" not in operation:
            if "x-max-body" in operation:
                raise ContractError(f"{where}: x-max-body without requestBody")
            return "NULL", False, 0, False
        request = self.resolve(operation["requestBody"], where)
        content = request["content"]
        if "application/json" not in content or set(content) - {"application/json", MERGE_PATCH}:
            raise ContractError(f"{where}: the daemon reads application/json and {MERGE_PATCH}")
        schemas = {json.dumps(media["schema"], sort_keys=True) for media in content.values()}
        if len(schemas) != 1:
            raise ContractError(f"{where}: one schema for all media types")
        size = operation.get("x-max-body")
        if not isinstance(size, int) or size < 1:
            raise ContractError(f"{where}: needs x-max-body")
        spec = self.spec(content["application/json"]["schema"], where)
        return spec, request.get("required", False), size, MERGE_PATCH in content

    def check_codes(self, operation, where):
        statuses = operation["responses"]
        for code in operation.get("x-error-codes", []):
            if code not in self.codes:
                raise ContractError(f"{where}: x-error-codes: {code} is not in hresult.def")
            if str(self.codes[code]) not in statuses:
                raise ContractError(f"{where}: {code} answers {self.codes[code]}, which is not among the responses")
        if "429" not in statuses:
            raise ContractError(f"{where}: every operation answers 429: limits.address_requests_per_second")
        if not where.endswith(" public") and not {"401", "403"} <= set(statuses):
            raise ContractError(f"{where}: an authenticated operation answers 401 and 403")

    def answers(self, operation, where):
        """{media type: schema} of what it may succeed with."""
        found = {}
        for status, answer in operation["responses"].items():
            if status.startswith("2"):
                found.update({media: body.get("schema") for media, body in self.resolve(answer, where).get("content", {}).items()})
        return found

    def names(self, rows, prefix):
        if not rows:
            return "NULL"
        index = len(self.tables)
        self.tables.append(f"static const char *const {prefix}_{index}[] = {{" + ", ".join(map(c_string, rows)) + ", NULL};")
        return f"{prefix}_{index}"

    def properties(self, schema, where):
        schema = self.resolve(schema, where)
        found = dict(schema.get("properties", {}))
        for part in schema.get("allOf", []):
            found.update(self.properties(part, where))
        return found

    def fields(self, operation, query, where):
        """What ?fields= may name, and whether it is of each item of a list."""
        if not any(parameter["name"] == "fields" for parameter in query):
            return "NULL", False
        members = self.properties(self.answers(operation, where)["application/json"], where)
        is_list = {"items", "next_cursor"} <= set(members)
        if is_list:
            members = self.properties(self.resolve(members["items"], where)["items"], where)
        if not members:
            raise ContractError(f"{where}: ?fields= of what has no members")
        return self.names(list(members), "fields"), is_list

    def produces(self, operation, where):
        """Media types of its successes, when it minds Accept."""
        if "406" not in operation["responses"]:
            return "NULL"
        if not self.answers(operation, where):
            raise ContractError(f"{where}: 406 of what has no body")
        return self.names(list(self.answers(operation, where)), "types")

    def tagged(self, operation, where):
        """Does a success carry an ETag?"""
        answers = [self.resolve(answer, where) for status, answer in operation["responses"].items() if status in ("200", "201")]
        return any("ETag" in answer.get("headers", {}) for answer in answers)

    @staticmethod
    def must_match(operation, where):
        if operation.get("x-if-match", "required") != "required":
            raise ContractError(f"{where}: x-if-match is `required`, or not there")
        return "x-if-match" in operation

    def check_headers(self, method, operation, parameters, where):
        headers = {parameter["name"] for parameter in parameters if parameter["in"] == "header"}
        if headers - READ_HEADERS:
            raise ContractError(f"{where}: nobody reads the header {', '.join(headers - READ_HEADERS)}")
        once = method == "post" and not operation.get("x-repeatable")  # whose repetition does no harm, and whose answer must not be kept
        if ("Idempotency-Key" in headers) != once:
            raise ContractError(f"{where}: every POST that is not x-repeatable, and nothing else, takes the header Idempotency-Key")
        if ("If-Match" in headers) != (method in ("put", "patch", "delete")):
            raise ContractError(f"{where}: every PUT, PATCH and DELETE, and nothing else, takes If-Match")
        if method == "get" and ("If-None-Match" in headers) != self.tagged(operation, where):
            raise ContractError(f"{where}: a GET whose 200 has an ETag, and no other one, takes If-None-Match")
        demands = {"304"} if method == "get" and "If-None-Match" in headers else {"412"} if "If-Match" in headers else set()
        demands |= {"428"} if self.must_match(operation, where) else set()
        if not demands <= set(operation["responses"]):
            raise ContractError(f"{where}: its preconditions answer {', '.join(sorted(demands))}")
        if once and self.success(operation, where) and not {"400", "409", "422"} <= set(operation["responses"]):
            raise ContractError(f"{where}: Idempotency-Key answers 400, 409 and 422")

    @staticmethod
    def success(operation, where):
        """The least 2xx; 0 of a call that has no counterpart here, which must then answer 501."""
        statuses = [int(status) for status in operation["responses"] if status.startswith("2")]
        if not statuses and "E_NOTIMPL" not in operation.get("x-error-codes", []):
            raise ContractError(f"{where}: neither succeeds nor answers E_NOTIMPL")
        return min(statuses, default=0)

    @staticmethod
    def roles(operation, where):
        """x-role as a list; one name is a list of one; none for what is public."""
        role, public = operation.get("x-role"), operation.get("security") == []
        roles = role if isinstance(role, list) else [] if role is None else [role]
        if public == bool(roles) or not all(name in ROLES for name in roles) or len(set(roles)) != len(roles):
            raise ContractError(f"{where}: needs x-role, one or more of {', '.join(ROLES)}, or security []")
        return public, roles

    def route(self, path, method, shared, operation):
        where = f"{method.upper()} {path}"
        public, roles = self.roles(operation, where)
        self.check_codes(operation, where + (" public" if public else ""))
        parameters = [self.resolve(parameter, where) for parameter in shared + operation.get("parameters", [])]
        in_path = [parameter["name"] for parameter in parameters if parameter["in"] == "path"]
        if in_path != re.findall(r"\{([^}]*)\}", path) or len(in_path) > 2:
            raise ContractError(f"{where}: path parameters {in_path} do not match the path, at most two")
        self.check_headers(method, operation, parameters, where)
        in_query = [parameter for parameter in parameters if parameter["in"] == "query"]
        query, n_query = self.query(in_query, where)
        fields, is_list = self.fields(operation, in_query, where)
        spec, required, size, merge_patch = self.body(operation, where)
        success = self.success(operation, where)
        flag = {True: "true", False: "false"}
        return (f"    {{.method = {c_string(method.upper())}, .path = {c_string(path)}, .operation_id = "
                f"{c_string(operation['operationId'])},\n     .roles = {' | '.join(f'ROLE_BIT({ROLES[name]})' for name in roles) or 0}, .is_public = {flag[public]}, "
                f".body = {spec}, .body_required = {flag[required]}, .body_max = {size},\n     .merge_patch = {flag[merge_patch]}, "
                f".must_match = {flag[self.must_match(operation, where)]}, .tagged = {flag[self.tagged(operation, where)]}, .produces = {self.produces(operation, where)}, .fields = {fields}, .is_list = {flag[is_list]},\n     .query = {query}, .n_query = {n_query}, .success = {success}}},\n")

    def routes(self):
        rows, seen = [], set()
        for path, item in self.doc["paths"].items():
            unknown = set(item) - set(METHODS) - {"parameters"}
            if unknown:
                raise ContractError(f"{path}: {', '.join(sorted(unknown))} is not served")
            for method in METHODS:
                if method not in item:
                    continue
                name = item[method]["operationId"]
                if name in seen:
                    raise ContractError(f"operationId {name} is used twice")
                seen.add(name)
                rows.append(self.route(path, method, item.get("parameters", []), item[method]))
        return rows


HEADER = """#pragma once
/* Generated from openapi.yaml by scripts/generate-api.py; do not edit. */
#include <stdbool.h>
#include <stddef.h>

#include "base/jsonspec.h"
#include "engine/engine.h"

/* A query parameter: its value is converted by its kind, then checked against the spec. */
struct api_parameter {
    const char *name;
    bool required;
    const struct json_spec *spec;
};

struct api_route {
    const char *method;             /* "GET" answers HEAD too */
    const char *path;               /* with {names}; at most two of them */
    const char *operation_id;
    unsigned roles;                 /* least roles, or of ROLE_BIT: one of them is enough; 0 for public ones */
    bool is_public;                 /* needs no authentication */
    const struct json_spec *body;   /* NULL = takes no body */
    bool body_required;             /* false: an empty body is {} */
    size_t body_max;                /* bytes */
    bool merge_patch;               /* application/merge-patch+json is taken too */
    bool must_match;                /* what is there is not changed without If-Match */
    bool tagged;                    /* successes may carry an ETag */
    const char *const *produces;    /* NULL-ended: media types of successes; NULL: Accept is not looked at */
    const char *const *fields;      /* NULL-ended: what ?fields= may name; NULL: it is not taken */
    bool is_list;                   /* fields are those of each item */
    const struct api_parameter *query;
    size_t n_query;
    int success;                    /* the least 2xx that it answers; 0: only E_NOTIMPL */
};

extern const struct api_route api_routes[];
extern const size_t api_n_routes;

/* The contract itself, as served. */
extern const char openapi_yaml[];
extern const size_t openapi_yaml_size;
extern const char openapi_json[];
extern const size_t openapi_json_size;
/* info.version */
extern const char openapi_version[];
"""


def read_codes(path):
    """hresult.def: name -> HTTP status of a synchronous failure."""
    rows = re.findall(r"^HRESULT_ROW\((\w+),\s*0x[0-9A-Fa-f]+u,\s*(\d+),", path.read_text(), re.M)
    if not rows:
        raise ContractError(f"{path}: no rows")
    return {name: int(status) for name, status in rows}


def generate(openapi, out):
    text = openapi.read_text()
    doc = yaml.safe_load(text)
    codes = read_codes(openapi.parent / "daemon" / "base" / "hresult.def")
    listed = doc["components"]["schemas"]["HResult"]["enum"]
    if listed != list(codes):
        raise ContractError(f"schema HResult and hresult.def differ: {sorted(set(listed) ^ set(codes)) or 'in their order'}")
    contract = Contract(doc, codes)
    rows = contract.routes()
    as_json = json.dumps(doc, ensure_ascii=False, indent=1) + "\n"
    source = ["/* Generated from openapi.yaml by scripts/generate-api.py; do not edit. */", '#include "api/openapi.gen.h"', ""]
    source += contract.tables
    source += ["", "const struct api_route api_routes[] = {\n" + "".join(rows) + "};",
               "const size_t api_n_routes = sizeof(api_routes) / sizeof(api_routes[0]);", "",
               f"const char openapi_version[] = {c_string(doc['info']['version'])};", "",
               c_bytes("openapi_yaml", text), c_bytes("openapi_json", as_json)]
    out.mkdir(parents=True, exist_ok=True)
    (out / "openapi.gen.h").write_text(HEADER)
    (out / "openapi.gen.c").write_text("\n".join(source))
    (out / "openapi.json").write_text(as_json)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--openapi", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    try:
        generate(arguments.openapi, arguments.out)
    except ContractError as error:
        sys.exit(f"{arguments.openapi}: {error}")


if __name__ == "__main__":
    main()
