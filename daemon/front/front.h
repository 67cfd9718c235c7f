#pragma once
/* Role front: accepts TLS connections, checks client certificates, and hands core a plain socket with a preface
 * (base/preface.h) for each; then it relays bytes. It never interprets a request and opens no file: certificate, key,
 * sockets come over the control channel (fd 3) as docs/architecture.md tells.
 *
 * `reload` takes the members and fds of `start`, or the certificate files alone (chain, key, private CA [, client CA]).
 * It answers `ready`, or {"type":"reload_failed","error":ERR} and everything stays as it was.
 *
 * Returns the exit status: 0 when fd 3 was closed, 1 when the start was unusable or the way to core is gone. */
int front_main(void);
