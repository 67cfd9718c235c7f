#pragma once
/* The supervisor: quiesced serve [--config FILE] [--state-dir DIR] [--listen ADDR:PORT]... [--ready-file FILE].
 * Owns the listeners, the configuration and the credentials; starts front, core and agent, and starts them again, all
 * together, when one of them dies. Exit status: 0 after SIGTERM or SIGINT, 1 with a reason on standard error, 2 usage.
 */
int serve_main(int argc, char **argv);

/* The executable in which the agent's role is, found beside ours or in libexec/quiesced; NULL: ours (a test's). To be set before serve_main. */
extern const char *serve_agent_program;
