#pragma once
/* Private to the engine: who may call: credentials, enrolments. */
#include "engine/engine_private.h"

/* --- credentials.c, enrolments.c --- */
struct credential_kind;
extern const struct credential_kind credential_token, credential_certificate, credential_enrolment, credential_login;
struct credentials *credentials_new(struct engine *engine, const struct credential_kind *kind, struct err *err); /* from the store */
void credentials_free(struct engine *engine, struct credentials *set); /* before the store; NULL is fine */
void credentials_forget_old(struct engine *engine, struct credentials *set); /* those whose records retention has dropped */
void signings_free(struct engine *engine); /* when the engine ends */
