#pragma once
#include "writercheck/rules.h"

/* Plays every conversation against the writer of check, which fills in the verdicts. */
void scenes_play(struct check *check);
