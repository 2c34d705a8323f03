/* Credentials: who may do what over HTTP; rqlited's -auth file, a JSON array of
 *
 *   {"username": "bob", "password": "secret", "perms": ["status", "backup"]}
 *
 * Perms of the user "*" are everybody's, without a password; "all" is every perm.  The last of several entries of one name counts.
 * A file that has changed is read again; one that cannot be read then is said once, and the last good stays.
 *
 * A password is plain, or a hash as crypt(5) has them: "$y$...", "$2b$...", "$6$..." and so on.  To hash takes as long as it is meant to;
 * so a pair of hash and password that was right is known again, by a keyed digest, and only the first request with it takes that long.
 * docs/decisions/0008-hashed-passwords.md
 * Threads: any. */
#ifndef RAFTD_HTTP_CREDENTIALS_H
#define RAFTD_HTTP_CREDENTIALS_H

#include <stdbool.h>

#include "raftd/wire/err.h"

#define RQ_CREDENTIALS_TEXT_MAX 512u
#define RQ_CREDENTIAL_MAX       255u /* bytes of a name, a password */

struct rq_credentials;

/* Borrows path.  IO, PROTOCOL with words. */
enum rq_err rq_credentials_new(const char *path, struct rq_credentials **ret, char text[RQ_CREDENTIALS_TEXT_MAX]);
void rq_credentials_free(struct rq_credentials *c);

/* Reads the file again, changed or not.  An error leaves what it said before, with words. */
enum rq_err rq_credentials_reload(struct rq_credentials *c, char text[RQ_CREDENTIALS_TEXT_MAX]);

struct rq_login {
    char username[RQ_CREDENTIAL_MAX + 1], password[RQ_CREDENTIAL_MAX + 1];
};

/* Of an Authorization header; false: none that is understood. */
bool rq_login_parse(const char *header, struct rq_login *ret);
/* Of that user, for a node that joins in its name; false: no such user, or what the file has is a hash. */
bool rq_credentials_login(struct rq_credentials *c, const char *username, struct rq_login *ret);

bool rq_credentials_is_hashed(struct rq_credentials *c, const char *username);

/* login: NULL for who does not say who he is.  perm: one, or several separated by commas, any of which will do. */
bool rq_credentials_allow(struct rq_credentials *c, const struct rq_login *login, const char *perm);
/* That would have to hash: a tenth of a second or more, of which one at a time is done. */
bool rq_credentials_is_slow(struct rq_credentials *c, const struct rq_login *login, const char *perm);

#endif
