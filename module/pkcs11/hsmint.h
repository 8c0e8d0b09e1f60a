/* hsmint.h - the vendor constants of hsmint-pkcs11.so.
 *
 * Plain PKCS#11 is enough to mint, read, list and revoke. These names are for
 * programs that want a time to live other than the role's, that renew, or that
 * read what a standard attribute cannot say. Each has a default: no template
 * needs one. The mapping is described in spec/PKCS11.md.
 *
 * Include a PKCS#11 2.40 (or later) header first.
 */
#ifndef HSMINT_PKCS11_H
#define HSMINT_PKCS11_H

#define HSMINT_VENDOR                                                          \
    (0x80000000UL | 0x68736d00UL) /* CKA_VENDOR_DEFINED, "hsm" */

/* CK_ULONG, seconds. In a template: the time to live that is asked for. Read:
 * the seconds left. Set on a lease: renew it for as long from now. */
#define CKA_HSMINT_TTL (HSMINT_VENDOR + 0x01UL)
/* The others are read-only. CK_ULONG, seconds since 1970, UTC: */
#define CKA_HSMINT_ISSUED (HSMINT_VENDOR + 0x02UL)
#define CKA_HSMINT_EXPIRES (HSMINT_VENDOR + 0x03UL)
#define CKA_HSMINT_MAX_EXPIRES (HSMINT_VENDOR + 0x04UL)
/* UTF-8 texts, without an ending NUL: */
#define CKA_HSMINT_ROLE (HSMINT_VENDOR + 0x10UL)
#define CKA_HSMINT_STATE (HSMINT_VENDOR + 0x11UL) /* "pending", "active" */
#define CKA_HSMINT_OWNER (HSMINT_VENDOR + 0x12UL)
#define CKA_HSMINT_PROGRAM (HSMINT_VENDOR + 0x13UL)
#define CKA_HSMINT_API_BASE                                                    \
    (HSMINT_VENDOR + 0x14UL) /* where to use the key                           \
                              */
#define CKA_HSMINT_PROJECT_ID (HSMINT_VENDOR + 0x15UL)
#define CKA_HSMINT_SERVICE_ACCOUNT (HSMINT_VENDOR + 0x16UL)
#define CKA_HSMINT_SERVICE_ACCOUNT_ID (HSMINT_VENDOR + 0x17UL)
#define CKA_HSMINT_API_KEY_ID (HSMINT_VENDOR + 0x18UL)

/* CKA_APPLICATION of the CKO_DATA objects; their CKA_VALUE is JSON. */
#define HSMINT_APPLICATION_ROLE "hsmint:role"
#define HSMINT_APPLICATION_CONFIG "hsmint:config"
#define HSMINT_APPLICATION_POLICY "hsmint:policy"
/* The text behind the last CK_RV that was not CKR_OK in this session. */
#define HSMINT_APPLICATION_LAST_ERROR "hsmint:last-error"
/* CKA_LABEL of the secret key that holds the organisation's admin key. */
#define HSMINT_LABEL_ADMIN_KEY "admin-key"

#endif
