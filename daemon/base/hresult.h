#pragma once
/* Result codes: names, values and HTTP statuses are rows of hresult.def (source: vss-model 0.4,
 * values from the mingw-w64 vsserror.h and winerror.h). They are VSS's and COM's, and where these have none that fits, Windows's. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HRESULT_ROW(name, value, http, meaning, cause, cure) name = (int)(value),
enum hresult {
#include "base/hresult.def"
};
#undef HRESULT_ROW

/* "VSS_E_BAD_STATE"; unknown codes give "VSS_E_UNEXPECTED". Static storage. */
const char *hresult_name(uint32_t hr);
/* One sentence for people. Static storage. */
const char *hresult_meaning(uint32_t hr);
/* What it comes from, and what to do about it: a sentence or two each. */
const char *hresult_cause(uint32_t hr);
const char *hresult_cure(uint32_t hr);
/* All codes, in the table's order. */
size_t hresult_count(void);
uint32_t hresult_at(size_t i);
/* HTTP status of a synchronous failure with this code. */
int hresult_http(uint32_t hr);
/* Writes "0x80042301" (11 bytes with NUL). */
void hresult_hex(uint32_t hr, char ret_hex[11]);
/* Looks a name up; false when unknown. */
bool hresult_by_name(const char *name, uint32_t *ret_hr);
