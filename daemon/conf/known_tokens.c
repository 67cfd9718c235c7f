#include "conf/known_tokens.h"

#include <stddef.h>
#include <strings.h>

#include "base/cleanup.h"

/* printf %s WORD | sha256sum; tests/flow/test_check_config.py makes them anew. */
static const struct {
    const char *sha256, *word;
} known[] = {
    {"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", ""},
    {"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "test"},
    {"5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8", "password"},
    {"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b", "secret"},
    {"8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918", "admin"},
    {"057ba03d6c44104863dc7361fe4578965d1887360f90a0895882e58a6248fc86", "changeme"},
    {"3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0", "token"},
    {"64ae61df2c3e762acb1c4aa4ad6f7086b9022e873887c5092063a6fc236deae0", "quiesced"},
    {"8d969eef6ecad3c29a3a629280e686cf0c3f5d5a86aff3ca12020c923adc6c92", "123456"},
    {"4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2", "root"},
    {"1c8bfe8f801d79745c4631d09fff36c82aa37fc4cce4fc946683d7b336b63032", "letmein"},
    {"50d858e0985ecc7f60418aaf0cc5ab587f42c2570a884095a9e8ccacd0f6545c", "example"},
    {"8f0e2f76e22b43e2855189877e7dc1e1e7d98c226c95db247cd1d547928334a9", "passw0rd"},
    {"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "hello"},
    {"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae", "foo"},
    {"2a3b62b53ddb9f167b63d22202a360811ba78df015021f704d01ee9abad4169c", "nightly"},
};

const char *known_token(const char *sha256)
{
    for (size_t i = 0; i < ELEMENTS(known); i++)
        if (strcasecmp(known[i].sha256, sha256) == 0)
            return known[i].word;
    return NULL;
}
