#pragma once
/* Strings with bounds. */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool str_eq(const char *a, const char *b); /* NULL-safe; NULL equals only NULL */
bool str_starts(const char *text, const char *prefix);
/* snprintf that never leaves dst unterminated; returns false when it was cut. */
bool str_format(char *dst, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Copy with bound; false when cut. */
bool str_copy(char *dst, size_t size, const char *src);
/* malloc'ed printf; aborts on out of memory. Caller frees. */
char *str_new(const char *fmt, ...) __attribute__((format(printf, 1, 2), malloc));
/* Whole decimal number within [min, max]; false otherwise. */
bool str_to_int(const char *text, int64_t min, int64_t max, int64_t *ret_value);
/* malloc/calloc/strdup that abort on out of memory (house rule: small allocations never fail softly). */
void *mem_new(size_t size); /* zeroed */
void *mem_resize(void *p, size_t size);
char *str_dup(const char *text); /* NULL gives NULL */
/* Is path absolute, without "." or ".." or empty parts, and shorter than PATH_MAX? */
bool path_is_canonical(const char *path);
/* Is path equal to root or beneath it? Both canonical. */
bool path_beneath(const char *path, const char *root);
