#include "base/str.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"

bool str_eq(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

bool str_starts(const char *text, const char *prefix)
{
    return text && prefix && strncmp(text, prefix, strlen(prefix)) == 0;
}

bool str_format(char *dst, size_t size, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int length = vsnprintf(dst, size, fmt, args);
    va_end(args);
    if (length < 0) {
        if (size)
            dst[0] = '\0';
        return false;
    }
    return (size_t)length < size;
}

bool str_copy(char *dst, size_t size, const char *src)
{
    size_t length = strlen(src);
    if (size == 0)
        return false;
    bool fits = length < size;
    if (!fits)
        length = size - 1;
    memmove(dst, src, length);
    dst[length] = '\0';
    return fits;
}

char *str_new(const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, fmt);
    int length = vasprintf(&text, fmt, args);
    va_end(args);
    if (length < 0)
        abort();
    return text;
}

bool str_to_int(const char *text, int64_t min, int64_t max, int64_t *ret_value)
{
    /* strtoll alone would take leading blanks and a plus sign. */
    if (!text || !((*text >= '0' && *text <= '9') || *text == '-'))
        return false;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno != 0 || *end != '\0' || end == text || value < min || value > max)
        return false;
    *ret_value = value;
    return true;
}

void *mem_new(size_t size)
{
    void *p = fault_allocation() ? NULL : calloc(1, size ? size : 1);
    if (!p)
        abort();
    return p;
}

void *mem_resize(void *p, size_t size)
{
    void *moved = realloc(p, size ? size : 1);
    if (!moved)
        abort();
    return moved;
}

char *str_dup(const char *text)
{
    if (!text)
        return NULL;
    char *copy = strdup(text);
    if (!copy)
        abort();
    return copy;
}

bool path_is_canonical(const char *path)
{
    if (!path || path[0] != '/' || strlen(path) >= PATH_MAX)
        return false;
    if (path[1] == '\0')
        return true;
    for (const char *part = path + 1;; part++) {
        size_t length = strcspn(part, "/");
        if (length == 0 || (length == 1 && part[0] == '.') || (length == 2 && part[0] == '.' && part[1] == '.'))
            return false;
        part += length;
        if (*part == '\0')
            return true;
    }
}

bool path_beneath(const char *path, const char *root)
{
    size_t length = strlen(root);
    if (length == 1 && root[0] == '/')
        return path[0] == '/';
    return strncmp(path, root, length) == 0 && (path[length] == '\0' || path[length] == '/');
}
