"""What hsmint relies on in the Admin API. Runs against the double, and against
the real service when these are set (it makes and deletes objects of its own,
costs nothing, and needs a project that is not the default one):

    HSMINT_REAL_URL=https://api.openai.com/v1 HSMINT_REAL_ADMIN_KEY_FILE=FILE
    HSMINT_REAL_PROJECT=proj_… [HSMINT_REAL_CA_FILE=FILE]
"""

import os
import pathlib
import secrets
import time

import pytest

from adminapi import AdminApi
from conftest import Service, wait_for

REAL = os.environ.get("HSMINT_REAL_URL")


def real_api():
    key = pathlib.Path(os.environ["HSMINT_REAL_ADMIN_KEY_FILE"]).read_text().strip()
    return AdminApi(REAL, key, os.environ.get("HSMINT_REAL_CA_FILE"), os.environ["HSMINT_REAL_PROJECT"])


@pytest.fixture(params=["double"] + (["real"] if REAL else []))
def api(request, place):
    if request.param == "real":
        a, service = real_api(), None
        a.patience = 120
    else:
        service = Service(place)
        a = AdminApi(service.url, service.admin_key, service.ca)
        a.patience = 5
    a.made, a.made_admin_keys = [], []
    yield a
    for account in a.made:
        a.delete(f"{a.accounts}/{account}")
    for key in a.made_admin_keys:
        a.delete(f"/organization/admin_api_keys/{key}")
    a.close()
    if service:
        service.stop()


def mint(api, name=None, **fields):
    made = api.mint(name or f"hsmint-contract-{secrets.token_hex(4)}", **fields)
    api.made.append(made["id"])
    return made


def eventually(api, check, what):
    wait_for(check, api.patience, what)


def test_no_bearer_and_a_wrong_one(api):
    assert api.get("/organization/projects", key="").error(401)
    r = api.get("/organization/projects", key="sk-admin-" + "x" * 155)
    r.error(401)
    assert r.json["error"]["code"] == "invalid_api_key"
    assert "x" * 155 not in r.text.decode()


def test_an_account_is_made_used_and_deleted(api):
    made = mint(api, expires_in_seconds=3600)
    assert made["object"] == "organization.project.service_account"
    assert made["id"] and made["role"] == "member"
    key = made["api_key"]
    assert key["id"] and key["value"].startswith("sk-") and len(key["value"]) > 40
    assert abs(key["expires_at"] - time.time() - 3600) < 120
    eventually(api, lambda: api.get(f"{api.accounts}/{made['id']}").status == 200, "the account to be seen")
    shown = api.get(f"{api.accounts}/{made['id']}").ok()
    assert shown["name"] == made["name"] and "value" not in str(shown)
    eventually(api, lambda: api.works(key["value"]), "the key to work")
    gone = api.delete(f"{api.accounts}/{made['id']}").ok()
    assert gone["deleted"] is True and gone["id"] == made["id"]
    eventually(api, lambda: not api.works(key["value"]), "the key to be dead")
    assert api.get("/models", key=key["value"]).json["error"]["code"] == "invalid_api_key"
    eventually(api, lambda: api.get(f"{api.accounts}/{made['id']}").status == 404, "the account to be gone")


def test_a_repeated_create_makes_a_second_account(api):
    name = f"hsmint-contract-{secrets.token_hex(4)}"
    ids = {mint(api, name)["id"], mint(api, name)["id"]}
    assert len(ids) == 2
    eventually(api, lambda: {a["id"] for a in api.all(api.accounts) if a["name"] == name} == ids, "both in the list")


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_pages(api, limit):
    mine = [mint(api)["id"] for _ in range(5)]
    eventually(api, lambda: set(mine) <= {a["id"] for a in api.all(api.accounts)}, "all in the list")
    ids = [a["id"] for a in api.all(api.accounts, limit)]
    assert len(ids) == len(set(ids)) and set(mine) <= set(ids)


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x"])
def test_a_page_has_1_to_100(api, limit):
    api.get(f"{api.accounts}?limit={limit}").error(400)


def test_a_name_is_needed(api):
    api.post(api.accounts, {}).error(400)
    api.post(api.accounts, b"{", headers={"Content-Type": "application/json"}).error(400)


@pytest.mark.parametrize("seconds", [0, -1, 31536001, "60", 1.5])
def test_an_expiry_is_1_second_to_a_year(api, seconds):
    r = api.post(api.accounts, {"name": "never", "expires_in_seconds": seconds})
    if r.status == 200:
        api.made.append(r.json["id"])
    r.error(400)


def test_delete_and_archive_want_no_content_type(api):
    made = mint(api)
    eventually(api, lambda: api.get(f"{api.accounts}/{made['id']}").status == 200, "the account to be seen")
    assert api.delete(f"{api.accounts}/{made['id']}", headers={}).status == 200


def test_unknown_project_and_account(api):
    r = api.get("/organization/projects/proj_doesnotexist000000000000/service_accounts")
    r.error(404)
    api.get(f"{api.accounts}/svc_acct_doesnotexist").error(404)


def test_more_keys_of_one_account(api):
    made = mint(api, expires_in_seconds=3600)
    eventually(api, lambda: api.get(f"{api.accounts}/{made['id']}").status == 200, "the account to be seen")
    second = api.post(f"{api.accounts}/{made['id']}/api_keys", {"name": "second", "expires_in_seconds": 600}).ok()
    assert second["id"] and second["value"] and second["expires_at"]
    eventually(
        api,
        lambda: {second["id"], made["api_key"]["id"]} <= {k["id"] for k in api.all(api.keys + "?owner_project_access=any")},
        "both keys in the list",
    )
    later = api.post(f"{api.keys}/{second['id']}", {"expires_in_seconds": 7200}).ok()
    assert later["expires_at"] > second["expires_at"]
    assert api.get(f"{api.keys}/{second['id']}").ok()["redacted_value"] != second["value"]
    # Allowed or not has changed over time; what counts is that it is told apart.
    assert api.delete(f"{api.keys}/{second['id']}").status in (200, 400)


def test_a_minted_key_is_no_admin_key(api):
    made = mint(api, expires_in_seconds=600)
    eventually(api, lambda: api.works(made["api_key"]["value"]), "the key to work")
    assert api.get("/organization/projects", key=made["api_key"]["value"]).status in (401, 403)
    assert api.get("/organization/admin_api_keys", key=made["api_key"]["value"]).status in (401, 403)


def test_admin_keys(api):
    name = f"hsmint-contract-{secrets.token_hex(4)}"
    made = api.post("/organization/admin_api_keys", {"name": name, "expires_in_seconds": 3600}).ok()
    api.made_admin_keys.append(made["id"])
    assert made["value"].startswith("sk-admin-") and made["expires_at"]
    assert made["value"].startswith(made["redacted_value"].split(".")[0].split("*")[0])
    assert made["owner"]["type"] in ("user", "service_account")
    eventually(api, lambda: api.get("/organization/projects", key=made["value"]).status == 200, "the new key to work")
    assert made["id"] in {k["id"] for k in api.all("/organization/admin_api_keys")}
    assert "value" not in api.get(f"/organization/admin_api_keys/{made['id']}").ok()
    assert api.delete(f"/organization/admin_api_keys/{made['id']}").ok()["deleted"] is True
    eventually(api, lambda: api.get("/organization/projects", key=made["value"]).status == 401, "the new key to be dead")


def test_the_project(api):
    p = api.get(f"/organization/projects/{api.project}").ok()
    assert p["id"] == api.project and p["status"] == "active" and p["name"]
    assert api.project in {q["id"] for q in api.all("/organization/projects")}


@pytest.mark.parametrize("brackets", ["", "[]"])
def test_audit_events_by_both_spellings(api, brackets):
    made = mint(api)
    query = f"event_types{brackets}=service_account.created&event_types{brackets}=service_account.deleted&resource_ids{brackets}={made['id']}"
    r = api.get("/organization/audit_logs?" + query.replace("[", "%5B").replace("]", "%5D"))
    if r.status in (403, 404):
        pytest.skip("this organisation has no audit log for this key")
    for event in r.ok()["data"]:
        assert event["type"] in ("service_account.created", "service_account.deleted")
