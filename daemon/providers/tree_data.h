#pragma once
/* The data of one regular file. Each returns 0 or an errno value. */
#include <stdbool.h>
#include <stdint.h>

/* Shares every extent (FICLONE). */
int tree_data_clone(int from, int to);
/* Copies size bytes, keeping holes; ECANCELED as soon as cancelled(arg) is true (NULL = never). */
int tree_data_copy(int from, int to, int64_t size, bool (*cancelled)(void *arg), void *arg);
