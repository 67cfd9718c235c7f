#pragma once
/* Named fault points (fault_points.h). In a build with QUIESCED_FAULTS a point is armed while a file of its name exists
 * in $QUIESCED_FAULT_DIR; otherwise the calls below are constant false and cost nothing. The file says what happens:
 *
 *   [once] [fail]     the call must fail; an empty file means this
 *   [once] delay MS   it goes on after so many milliseconds
 *   [once] exit       the process ends at once (status 70)
 *   [once] crash      the process is killed (SIGKILL)
 *   [once] stop       the process is stopped (SIGSTOP)
 *   [once] nomem      the next allocation fails
 *   pause             the process does nothing until the file is gone
 *   hold              the same, but a worker goes on hearing cancel, loss and its writers (elsewhere: pause)
 *
 * A file "clock.jump" there with a number sets the wall clock forward by so many milliseconds (back, when it is negative).
 * "once" removes the file by the hit. Each hit adds a line "ROLE PID" to the file NAME.hit beside it. */
#include <stdbool.h>

#ifdef QUIESCED_FAULTS
enum fault_kind { FAULT_NONE, FAULT_FAIL, FAULT_HOLD };
/* Does what is to be done here; what is left to the caller is returned. */
enum fault_kind fault_take(const char *name);
/* Must this call fail? */
bool fault(const char *name);
/* The same for "ROLE.point" of the role that we are. */
bool fault_role(const char *point);
/* Is it still armed? For a caller that holds. */
bool fault_armed(const char *name);
/* Was "nomem" hit? Then once true. */
bool fault_allocation(void);
/* How far the wall clock has jumped, in milliseconds; mostly 0. */
long long fault_clock_ms(void);
/* "QUIESCED_FAULT_DIR=..." for a child's environment, or NULL. Static storage. */
const char *fault_environment(void);
/* quiesced --list-faults: "NAME<tab>WHAT" a line. Returns the exit status. */
int fault_list_main(int argc, char **argv);
#else
#define fault(name) false
#define fault_role(point) false
#define fault_allocation() false
#define fault_clock_ms() 0
#define fault_environment() NULL
#endif
