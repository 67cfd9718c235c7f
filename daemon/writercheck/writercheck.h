#pragma once
/* `quiesced writer-check`: plays every event, deadline and abuse against a writer (docs/writing-a-writer.md).
 * Exit status: 0 every rule holds; 1 one does not; 2 it could not be judged (wrong usage, a probe that cannot run). */
int writer_check_main(int argc, char **argv);
