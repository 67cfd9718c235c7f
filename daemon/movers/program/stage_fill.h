#pragma once
/* A staging directory that a program fills. */
#include "movers/payload/stage.h"

/* For struct program's tick, arg: the stage. What the program has written so far tells the progress (proc(5), /proc/PID/io). */
void stage_fill_tick(void *arg, pid_t pid);
/* Drops what the program brought along within a whole folder, and another group restores; widened: whatever it brought along
 * unasked. The folders get their times back. */
void stage_fill_drop(const struct stage *stage, bool widened);
