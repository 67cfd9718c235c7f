"""Values for schemas of openapi.yaml: valid ones, and ones that are off by one keyword. Everything comes from one random.Random."""

TEXTS = ["", " ", "x", "main", "app", "ÿ", "日本語", "é", "e\u0301", "\u202e\u200b", "\U0001f4be", "a" * 65, "'; DROP TABLE sessions; --", "../../etc/passwd", "%s%n%x", "%00", "\\", '"',
         "<script>", "${jndi:x}", "\t", "\n", "\x00", "\x1f", "\x7f", "\ud800", "\udfff\ud800", "\ufeff", "\uffff", "null", "true", "0", "-1", "NaN"]
NUMBERS = [0, 1, -1, 2, 5, 255, 65536, 2**31 - 1, 2**31, -2**31 - 1, 2**53, 2**63 - 1, 2**63, -2**63, 2**64, 10**30, 1.5, -0.0, 1e308, 0.1]
OTHERS = [None, True, False, [], {}, [[]], [None], {"": None}, {"a": {"b": []}}, "x", 7]


class Values:
    """`place`: a folder beneath which every path lies, since a root daemon does as it is told. `pool`: {member: values that mean something}."""

    def __init__(self, random, contract, place, pool):
        self.random, self.contract, self.place, self.pool = random, contract, str(place), pool

    def text(self, limit=64):
        roll = self.random.random()
        if roll < 0.7:
            return self.random.choice(TEXTS)[:limit]
        if roll < 0.9:
            return "".join(chr(self.random.choice((self.random.randrange(32, 127), self.random.randrange(0x80, 0xd800), self.random.randrange(0x10000, 0x11000))))
                           for _ in range(self.random.randrange(0, min(limit, 40) + 1)))
        return "z" * limit

    def path(self):
        tail = self.random.choice(["data", "data/in", "data/none", "restored", "restored/new", "backups", "repo-a", "repo-b", "data/../data", "data//in", "data/.", "", "é", "a b", "data/link"])
        return f"{self.place}/{tail}"

    def string(self, schema, name):
        if "enum" in schema:
            return self.random.choice(schema["enum"])
        if self.pool.get(name) and self.random.random() < 0.7:
            return self.random.choice(self.pool[name])
        if schema.get("format") == "absolute-path" or name in ("path", "target", "password_file"):
            return self.path()
        if name == "url":
            return self.random.choice(["rest:http://127.0.0.1:9/", "rest:http://u:p@127.0.0.1:9/x", "http://127.0.0.1:9/", "sftp:", f"{self.place}/repo-c"])
        if name in ("provider", "mover"):
            return self.random.choice(["copy", "reflink", "btrfs", "archive", "restic", "none"])
        if schema.get("format") == "name":
            return "n" + str(self.random.randrange(1000))
        longest = schema.get("maxLength", 64)
        text = self.text(longest).replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text.ljust(schema.get("minLength", 0), "y")

    def valid(self, schema, name=""):
        schema = self.contract.resolve(schema)
        if "allOf" in schema:
            return {key: value for part in schema["allOf"] for key, value in self.valid(part, name).items()}
        kinds = schema.get("type", "string")
        kind = self.random.choice(kinds) if isinstance(kinds, list) else kinds
        if kind == "object":
            required = schema.get("required", [])
            return {key: self.valid(part, key) for key, part in schema.get("properties", {}).items() if key in required or self.random.random() < 0.4}
        if kind == "array":
            return [self.valid(schema["items"], name) for _ in range(self.random.choice((0, 1, 1, 2)))]
        if kind == "integer":
            return self.random.choice([schema.get("minimum", 0), schema.get("default", schema.get("minimum", 0)), min(schema.get("maximum", 100), 60)])
        return {"boolean": lambda: self.random.random() < 0.5, "null": lambda: None, "string": lambda: self.string(schema, name)}[kind]()

    def off(self, schema, name=""):
        """A value that this schema does not take, or at least one that nobody would send."""
        schema = self.contract.resolve(schema)
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        choices = [lambda: self.random.choice(OTHERS), lambda: self.random.choice(NUMBERS)]
        if "object" in kinds:
            choices += [lambda: self.off_member(schema)] * 6
        if "array" in kinds:
            choices += [lambda: [self.off(schema["items"], name)], lambda: [self.valid(schema["items"], name)] * (schema.get("maxItems", 4) + 1)]
        if "string" in kinds:
            choices += [lambda: self.harmless(self.text()), lambda: "w" * (schema.get("maxLength", 64) + 1), lambda: ""]
        if "integer" in kinds:
            choices += [lambda: schema.get("minimum", 0) - 1, lambda: schema.get("maximum", 0) + 1, lambda: str(schema.get("minimum", 0))]
        return self.random.choice(choices)()

    def harmless(self, text):
        return self.place + text if text.startswith("/") else text

    def off_member(self, schema):
        value = self.valid(schema) or {}  # null where that is allowed
        members = list(schema.get("properties", {}).items())
        roll = self.random.random()
        if roll < 0.2:
            value[self.random.choice(["", "unknown", "__proto__", "kind ", "ID", "\u0000", "é"])] = self.random.choice(OTHERS)
        elif roll < 0.4 and value:
            del value[self.random.choice(list(value))]
        elif members:
            key, part = self.random.choice(members)
            value[key] = self.off(part, key)
        return value

