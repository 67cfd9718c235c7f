#pragma once
/* A look into every database of a restored cluster. */
#include <stdint.h>

#include "base/err.h"
#include "writers/postgresql/session.h"

/* Reads the catalogs of every database that takes connections, and has amcheck, where it is installed, check their indexes.
 * session: connected; connection: the configured conninfo (of keyword=value form, or only the session's own database is
 * looked at). Until give_up_ms (CLOCK_MONOTONIC). */
int pg_verify_databases(struct pg_session *session, const char *connection, int64_t give_up_ms, struct err *err);
