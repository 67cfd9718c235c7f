/* quiesced audit-verify: reads an exported audit trail and names the first link, or the first seal, that does not hold. It needs neither daemon nor store. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "crypto/atomic_file.h"
#include "crypto/audit_seal.h"
#include "crypto/chain.h"

struct link {
    int64_t seq;
    char hash[HASH_HEX_SIZE];
};

struct options {
    const char *file, *key, *ca, *seal;
    struct link after, head; /* head.seq 0: not given */
};

/* What has been read so far. */
struct trail {
    const struct options *options;
    const struct audit_trust *trust; /* NULL: signatures are not looked at */
    struct link last;
    uint8_t (*digests)[HASH_SIZE]; /* of the records behind --after, in their order */
    size_t n, room, line;
    size_t seals;
    int64_t sealed;
    char sealed_at[CLOCK_RFC3339_SIZE], installation[UUID_SIZE]; /* of the last seal */
};

static const char usage[] = "usage: quiesced audit-verify [--key FILE] [--ca FILE] [--seal FILE] [--after SEQ:HASH] [--head SEQ:HASH] FILE\n"
                            "FILE: one record a line, oldest first, seals among them (GET /audit?format=ndjson); - is standard input.\n"
                            "--key: what may have signed the seals (audit.pem of the state directory), --ca: who may have issued its certificate (ca.pem).\n"
                            "--seal: the last seal that the signer has given (audit.seal of the state directory): the trail must not end before it.\n"
                            "Exit status: 0 when every link and seal holds, 1 when one is broken, or none is there for --key and --ca, 2 when a file cannot be read.\n";

static bool parse_link(const char *text, struct link *ret)
{
    AUTO_FREE char *number = str_new("%.*s", (int)strcspn(text, ":"), text);
    const char *hash = strchr(text, ':');
    uint8_t digest[HASH_SIZE];

    if (!hash || !str_to_int(number, 1, INT64_MAX, &ret->seq) || !hash_from_hex(hash + 1, digest))
        return false;
    hash_hex(digest, ret->hash);
    return true;
}

static bool parse_options(int argc, char **argv, struct options *ret)
{
    *ret = (struct options){.after = {0, CHAIN_BEGIN}};
    const struct {
        const char *name;
        struct link *link;
        const char **text;
    } rows[] = {{"--after", &ret->after, NULL}, {"--head", &ret->head, NULL}, {"--key", NULL, &ret->key}, {"--ca", NULL, &ret->ca}, {"--seal", NULL, &ret->seal}};

    for (int i = 2; i < argc; i++) {
        size_t row = 0;
        while (row < ELEMENTS(rows) && !str_eq(argv[i], rows[row].name))
            row++;
        if (row == ELEMENTS(rows)) {
            if (ret->file || str_starts(argv[i], "--"))
                return false;
            ret->file = argv[i];
        } else if (++i == argc || (rows[row].link && !parse_link(argv[i], rows[row].link))) {
            return false;
        } else if (rows[row].text) {
            *rows[row].text = argv[i];
        }
    }
    return ret->file != NULL;
}

static int broken(size_t line, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int broken(size_t line, const char *fmt, ...)
{
    va_list args;

    printf("BROKEN at line %zu: ", line);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
    return 1;
}

/* --- records --- */

static void remember(struct trail *trail, const struct link *link)
{
    if (trail->n == trail->room) {
        trail->room = trail->room ? 2 * trail->room : 1024;
        trail->digests = mem_resize(trail->digests, trail->room * sizeof(*trail->digests));
    }
    hash_from_hex(link->hash, trail->digests[trail->n++]);
    trail->last = *link;
}

/* One record: 0, or 1 after it was said what is wrong. */
static int check_record(struct trail *trail, const char *record, const json_t *doc)
{
    const struct link *last = &trail->last;
    size_t line = trail->line;
    struct link link;

    if (!json_is_integer(json_object_get(doc, "seq")) || !json_is_string(json_object_get(doc, "prev")))
        return broken(line, "this is no audit record");
    link.seq = json_int(doc, "seq", 0);
    if (!chain_holds(record, link.hash))
        return broken(line, "record %" PRId64 " was edited: its hash does not fit its content", link.seq);
    if (link.seq <= last->seq)
        return broken(line, "record %" PRId64 " comes after record %" PRId64 ": reordered, or inserted", link.seq, last->seq);
    if (link.seq > last->seq + 1)
        return broken(line, "record %" PRId64 " comes after record %" PRId64 ": %" PRId64 " records were removed, or put elsewhere", link.seq, last->seq,
                      link.seq - last->seq - 1);
    if (!str_eq(json_str(doc, "prev", ""), last->hash))
        return broken(line, "record %" PRId64 " does not continue record %" PRId64 ": one of the two was replaced, or inserted", link.seq, last->seq);
    remember(trail, &link);
    return 0;
}

/* --- seals --- */

/* Has record seq another hash than this one? False of what is not in the file. */
static bool differs(const struct trail *trail, int64_t seq, const char *hash)
{
    const struct link *after = &trail->options->after;
    uint8_t digest[HASH_SIZE];

    if (seq == after->seq)
        return seq > 0 && !str_eq(hash, after->hash);
    if (seq < after->seq || seq > trail->last.seq)
        return false;
    return !hash_from_hex(hash, digest) || !hash_equal(digest, trail->digests[seq - after->seq - 1], HASH_SIZE);
}

/* What a seal says, wherever it stands: of which records, by whom. */
static int check_seal(const struct trail *trail, const json_t *seal)
{
    const json_t *previous = json_object_get(seal, "previous");
    int64_t seq = json_int(seal, "seal", 0), before = json_int(previous, "seal", 0);
    AUTO_FREE char *text = audit_seal_text(seal);
    const char *fault;

    if (!text || seq < 1 || before >= seq || before < 0)
        return broken(trail->line, "this is no seal");
    if (trail->trust && (fault = audit_seal_fault(trail->trust, seal)))
        return broken(trail->line, "the seal of record %" PRId64 " does not hold: %s", seq, fault);
    if (*trail->installation && !str_eq(trail->installation, json_str(seal, "installation", "")))
        return broken(trail->line, "the seal of record %" PRId64 " is another installation's", seq);
    if (differs(trail, seq, json_str(seal, "hash", "")))
        return broken(trail->line, "record %" PRId64 " is another one than was sealed: the trail was written anew, or the seal is not its own", seq);
    if (before && differs(trail, before, json_str(previous, "hash", "")))
        return broken(trail->line, "the seal of record %" PRId64 " knows another record %" PRId64 ", which was sealed before: the trail was written anew", seq, before);
    return 0;
}

static int take_seal(struct trail *trail, const json_t *seal)
{
    int64_t seq = json_int(seal, "seal", 0), last = trail->last.seq;

    if (seq > last)
        return broken(trail->line, "the seal of record %" PRId64 " comes after record %" PRId64 ": %" PRId64 " records were cut off, or the seal was put elsewhere", seq,
                      last, seq - last);
    if (check_seal(trail, seal) != 0)
        return 1;
    if (seq < last)
        return broken(trail->line, "the seal of record %" PRId64 " comes after record %" PRId64 ": it was put elsewhere", seq, last);
    trail->seals++;
    trail->sealed = seq;
    str_copy(trail->sealed_at, sizeof(trail->sealed_at), json_str(seal, "time", ""));
    str_copy(trail->installation, sizeof(trail->installation), json_str(seal, "installation", ""));
    return 0;
}

/* --seal: the last one that was given must be of this trail. */
static int check_published(struct trail *trail)
{
    AUTO_FREE char *text = NULL;
    struct err err = {0};
    int found = atomic_file_read(trail->options->seal, &text, NULL, &err);

    AUTO_JSON json_t *seal = found == 0 ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (!seal) {
        fprintf(stderr, "quiesced: %s: %s\n", trail->options->seal, found < 0 ? err.text : found == 1 ? "no such file" : "this is no seal");
        return 2;
    }
    int64_t seq = json_int(seal, "seal", 0);
    if (check_seal(trail, seal) != 0)
        return 1;
    if (seq > trail->last.seq)
        return broken(trail->line + 1, "the trail ends with record %" PRId64 ", and record %" PRId64 " was sealed: its end was cut off", trail->last.seq, seq);
    return 0;
}

/* --- the file --- */

static int check_line(struct trail *trail, const char *text)
{
    AUTO_JSON json_t *doc = json_loads(text, JSON_REJECT_DUPLICATES, NULL);

    return json_object_get(doc, "seal") ? take_seal(trail, doc) : check_record(trail, text, doc);
}

static int read_lines(struct trail *trail, FILE *file)
{
    AUTO_FREE char *text = NULL;
    size_t room = 0;
    ssize_t length;

    while ((length = getline(&text, &room, file)) >= 0) {
        trail->line++;
        if (length > 0 && text[length - 1] == '\n')
            text[--length] = '\0';
        if (strlen(text) != (size_t)length)
            return broken(trail->line, "a NUL byte");
        if (check_line(trail, text) != 0)
            return 1;
    }
    if (ferror(file)) {
        fprintf(stderr, "quiesced: %s: %s\n", trail->options->file, strerrordesc_np(errno));
        return 2;
    }
    return 0;
}

static int check_end(struct trail *trail)
{
    const struct options *options = trail->options;
    const struct link *last = &trail->last;

    if (options->head.seq && options->head.seq != last->seq)
        return broken(trail->line + 1, "the trail ends with record %" PRId64 ", not %" PRId64 ": its end was cut off, or it is not the one meant", last->seq,
                      options->head.seq);
    if (options->head.seq && !str_eq(options->head.hash, last->hash))
        return broken(trail->line, "record %" PRId64 " is another one than --head names: the trail was written anew", last->seq);
    return options->seal ? check_published(trail) : 0;
}

static int tell(const struct trail *trail)
{
    const struct link *last = &trail->last;

    if (trail->trust && trail->seals == 0) {
        printf("UNSEALED: %zu records whose links hold, head %" PRId64 ":%s, and no seal: who holds the store may have made all of them\n", trail->n, last->seq, last->hash);
        return 1;
    }
    printf("ok: %zu records, head %" PRId64 ":%s\n", trail->n, last->seq, last->hash);
    if (trail->seals > 0)
        printf("%s: %zu, the last one of record %" PRId64 " at %s; %" PRId64 " records stand behind it\n",
               trail->trust ? "seals that hold" : "seals whose signatures were not looked at (--key, --ca)", trail->seals, trail->sealed, trail->sealed_at,
               last->seq - trail->sealed);
    return 0;
}

static int check_file(FILE *file, const struct options *options, const struct audit_trust *trust)
{
    struct trail trail = {.options = options, .trust = trust, .last = options->after};
    int status = read_lines(&trail, file);

    if (status == 0)
        status = check_end(&trail);
    if (status == 0)
        status = tell(&trail);
    free(trail.digests);
    return status;
}

int audit_verify_main(int argc, char **argv)
{
    struct options options;
    struct audit_trust *trust = NULL;
    struct err err = {0};

    if (!parse_options(argc, argv, &options)) {
        fputs(usage, stderr);
        return 2;
    }
    if ((options.key || options.ca) && !(trust = audit_trust_load(options.key, options.ca, &err))) {
        fprintf(stderr, "quiesced: %s\n", err.text);
        return 2;
    }
    FILE *file = str_eq(options.file, "-") ? stdin : fopen(options.file, "re");
    if (!file) {
        fprintf(stderr, "quiesced: %s: %s\n", options.file, strerrordesc_np(errno));
        audit_trust_free(trust);
        return 2;
    }
    int status = check_file(file, &options, trust);
    if (file != stdin)
        fclose(file);
    audit_trust_free(trust);
    return status;
}
