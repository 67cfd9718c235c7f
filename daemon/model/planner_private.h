#pragma once
/* Between the parts of the planner: planner.c (the set), planner_freeze.c (what is frozen), planner_rules.c. */
#include "model/planner.h"

const struct planner_volume *planner_chosen(const struct planner_input *input, const struct planner_plan *plan, size_t i);
bool planner_listed(const char *path, const char *const *roots, size_t n);
/* Fills freeze, parked and the freezes' part of budget_ms. */
void planner_freeze_set(const struct planner_input *input, struct planner_plan *plan);
/* Fills refusals and warnings. */
void planner_judge(const struct planner_input *input, struct planner_plan *plan);
