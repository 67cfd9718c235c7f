#pragma once
/* Passwords come from files only (configuration member password_file). */
#include <stddef.h>

#include "base/err.h"

/* The file's first line. path NULL gives "". Fails when the file cannot be read, or its line is empty or does not fit.
 */
int secret_read(const char *path, char *ret, size_t size, struct err *err);
