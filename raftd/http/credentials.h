/* Credentials: who may do what over HTTP; rqlited's -auth file, a JSON array of
 *
 *   {"username": "bob", "password": "secret", "perms": ["status", "backup"]}
 *
 * Perms of the user "*" are everybody's, without a password; "all" is every perm.  The last of several entries of one name counts.
 * A file that has changed is read again; one that cannot be read then is said once, and the last good stays.
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

struct rq_login {
    char username[RQ_CREDENTIAL_MAX + 1], password[RQ_CREDENTIAL_MAX + 1];
};

/* Of an Authorization header; false: none that is understood. */
bool rq_login_parse(const char *header, struct rq_login *ret);
/* Of that user, for a node that joins in its name; false: no such user. */
bool rq_credentials_login(struct rq_credentials *c, const char *username, struct rq_login *ret);

/* login: NULL for who does not say who he is.  perm: one, or several separated by commas, any of which will do. */
bool rq_credentials_allow(struct rq_credentials *c, const struct rq_login *login, const char *perm);

#endif
