#pragma once
/* Ownership idiom: what a scope owns is released by attribute; TAKE_* hands it on. */
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(fn) __attribute__((cleanup(fn)))

/* Defines fn##_p for CLEANUP: calls fn unless the pointer is NULL. */
#define DEFINE_CLEANUP(type, fn)                                                                   \
    static inline void fn##_p(type *p)                                                             \
    {                                                                                              \
        if (*p)                                                                                    \
            fn(*p);                                                                                \
    }

static inline void free_cleanup(void *p)
{
    free(*(void **)p);
}
static inline void fd_cleanup(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
DEFINE_CLEANUP(json_t *, json_decref)

#define AUTO_FREE CLEANUP(free_cleanup)
#define AUTO_FD CLEANUP(fd_cleanup)
#define AUTO_JSON CLEANUP(json_decref_p)

#define TAKE_PTR(p)                                                                                \
    ({                                                                                             \
        __typeof__(p) taken_ = (p);                                                                \
        (p) = NULL;                                                                                \
        taken_;                                                                                    \
    })
#define TAKE_FD(fd)                                                                                \
    ({                                                                                             \
        int taken_ = (fd);                                                                         \
        (fd) = -1;                                                                                 \
        taken_;                                                                                    \
    })

#define ELEMENTS(a) (sizeof(a) / sizeof((a)[0]))
