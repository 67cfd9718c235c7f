#pragma once
/* quiesced --role=logger [FILE|--journal]: reads standard input, a pipe, and writes it to standard error, or sends it line by line to the journal
 * (serve/journal.h; what it does not take goes to standard error, its stream), or writes it to FILE, which it
 * opens itself at the start and again on SIGHUP (log rotation). It alone touches the log, and so it alone blocks when
 * the log lies on a frozen file system: everybody else writes into the pipe, which does not block (base/log.h). Ends
 * when the last process that holds the pipe has ended. Knows base only. */
int logger_main(int argc, char **argv);
