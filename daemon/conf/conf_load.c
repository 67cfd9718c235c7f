#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "conf/conf.h"
#include "conf/conf_defaults.h"
#include "conf/yaml_load.h"

static int read_text(const char *path, char **ret, size_t *ret_size, struct err *err)
{
    static const char hint[] = "Give the path of a readable YAML file.";
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat status;
    size_t size = 0;

    if (fd < 0 || fstat(fd, &status) != 0)
        return err_errno(err, E_INVALIDARG, errno, hint, "%s", path);
    if (S_ISDIR(status.st_mode))
        return err_errno(err, E_INVALIDARG, EISDIR, hint, "%s", path);
    AUTO_FREE char *text = mem_new(YAML_SIZE_MAX + 2);
    while (size <= YAML_SIZE_MAX) {
        ssize_t n = read(fd, text + size, YAML_SIZE_MAX + 1 - size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, E_INVALIDARG, errno, hint, "%s", path);
        if (n == 0)
            break;
        size += (size_t)n;
    }
    *ret = TAKE_PTR(text);
    *ret_size = size;
    return 0;
}

static json_t *one_fault(const struct err *err)
{
    json_t *faults = json_array();
    AUTO_FREE char *text = str_new("%s%s%s%s", err->text, err->hint[0] ? " (" : "", err->hint, err->hint[0] ? ")" : "");
    json_t *fault = json_string(text);

    json_add(faults, fault ? fault : json_string("the file or its name is not UTF-8"));
    return faults;
}

/* ret_lines: JSON pointer -> line. New references. */
static int read_with_lines(const char *path, json_t **ret, json_t **ret_lines, json_t **ret_faults)
{
    AUTO_FREE char *text = NULL;
    AUTO_JSON json_t *config = NULL;
    AUTO_JSON json_t *lines = NULL;
    struct err err = {0};
    size_t size = 0;

    if (read_text(path, &text, &size, &err) != 0 || yaml_load(text, size, path, &config, &lines, &err) != 0) {
        *ret_faults = one_fault(&err);
        return -1;
    }
    json_t *faults = conf_faults(config, lines, path);
    if (json_array_size(faults) > 0) {
        *ret_faults = faults;
        return -1;
    }
    json_decref(faults);
    conf_defaults(config);
    *ret = TAKE_PTR(config);
    *ret_lines = TAKE_PTR(lines);
    return 0;
}

int conf_read(const char *path, json_t **ret, json_t **ret_faults)
{
    AUTO_JSON json_t *lines = NULL;

    return read_with_lines(path, ret, &lines, ret_faults);
}

int conf_load(const char *path, json_t **ret, struct err *err)
{
    AUTO_JSON json_t *faults = NULL;
    char text[sizeof(err->text) - 32] = "";
    size_t i, shown = 0;
    json_t *fault;

    if (conf_read(path, ret, &faults) == 0)
        return 0;
    json_array_foreach(faults, i, fault)
    {
        size_t used = strlen(text), length = json_string_length(fault);
        if (shown == i && (i == 0 || used + length + 1 < sizeof(text))) {
            str_format(text + used, sizeof(text) - used, "%s%s", i ? "\n" : "", json_string_value(fault));
            shown++;
        }
    }
    size_t more = json_array_size(faults) - shown;
    if (more == 0)
        return err_set(err, E_INVALIDARG, NULL, "%s", text);
    return err_set(err, E_INVALIDARG, "quiesced check-config FILE shows all of them.", "%s\nand %zu more", text, more);
}

int conf_check_main(int argc, char **argv)
{
    const char *path = argc > 2 ? argv[2] : CONF_FILE;
    AUTO_JSON json_t *config = NULL;
    AUTO_JSON json_t *lines = NULL;
    AUTO_JSON json_t *faults = NULL;
    AUTO_JSON json_t *warnings = NULL;
    size_t i;
    json_t *fault;

    bool help = str_eq(path, "--help") || str_eq(path, "-h");
    if (argc > 3 || path[0] == '-') {
        fprintf(help ? stdout : stderr, "usage: quiesced check-config [FILE]\n  FILE  the configuration, by default %s\n", CONF_FILE);
        return help ? 0 : 2;
    }
    if (read_with_lines(path, &config, &lines, &faults) == 0)
        faults = conf_file_faults(config, lines, path);
    warnings = conf_file_warnings(config, lines, path);
    json_array_foreach(faults, i, fault) fprintf(stderr, "%s\n", json_string_value(fault));
    json_array_foreach(warnings, i, fault) fprintf(stderr, "%s\n", json_string_value(fault));
    if (json_array_size(faults) > 0)
        return 1;
    return printf("%s: OK\n", path) < 0;
}
