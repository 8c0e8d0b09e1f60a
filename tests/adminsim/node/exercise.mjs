// The official SDK against the double: every resource that hsmint uses.
//   node exercise.mjs URL ADMIN_KEY_FILE     (prints one line a step, exits 1 at the first that is wrong)
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import OpenAI from "openai";

const [baseURL, keyFile] = process.argv.slice(2);
const adminAPIKey = readFileSync(keyFile, "utf8").trim();
const client = new OpenAI({ adminAPIKey, baseURL, maxRetries: 0 });
const { projects, adminAPIKeys, auditLogs } = client.admin.organization;
const accounts = projects.serviceAccounts;
const begun = Math.floor(Date.now() / 1000) - 1;

async function step(name, run) {
  await run();
  console.log(name);
}
async function all(page) {
  const items = [];
  for await (const item of page) items.push(item);
  return items;
}
async function rejects(promise, status, check = () => true) {
  await assert.rejects(promise, (e) => e instanceof OpenAI.APIError && e.status === status && !!e.requestID && check(e));
}

const account = {};
const project = await projects.create({ name: "from the SDK" });

await step("projects", async () => {
  assert.equal((await projects.retrieve(project.id)).status, "active");
  assert.equal((await projects.update(project.id, { name: "renamed" })).name, "renamed");
  assert.ok((await all(projects.list({ limit: 1 }))).some((p) => p.name === "renamed"));
  assert.ok(!(await all(projects.list())).some((p) => p.id === "proj_old"));
  assert.ok((await all(projects.list({ include_archived: true }))).some((p) => p.id === "proj_old"));
  await rejects(projects.retrieve("proj_nowhere"), 404, (e) => e.code === "project_not_found");
});

await step("service accounts: create, retrieve, update", async () => {
  const made = await accounts.create(project.id, { name: "lease-1", expires_in_seconds: 600 });
  assert.match(made.api_key.value, /^sk-svcacct-.{100,}/);
  assert.ok(Math.abs(made.api_key.expires_at - made.created_at - 600) <= 1);
  Object.assign(account, made);
  assert.equal((await accounts.retrieve(made.id, { project_id: project.id })).name, "lease-1");
  assert.equal((await accounts.update(made.id, { project_id: project.id, name: "lease-2" })).name, "lease-2");
  const bare = await accounts.create(project.id, { name: "bare", create_service_account_only: true });
  assert.equal(bare.api_key, null);
});

await step("service accounts: paging", async () => {
  for (let i = 0; i < 7; i++) await accounts.create(project.id, { name: `n-${i}` });
  const names = (await all(accounts.list(project.id, { limit: 3 }))).map((a) => a.name);
  assert.equal(names.length, 9);
  assert.equal(new Set(names).size, 9);
});

await step("keys: more of one account, list, update, delete", async () => {
  const second = await accounts.apiKeys.create(account.id, { project_id: project.id, name: "second", expires_in_seconds: 60 });
  assert.ok(second.value && second.id && second.expires_at);
  const listed = await all(projects.apiKeys.list(project.id, { owner_project_access: "any", limit: 2 }));
  assert.ok(listed.some((k) => k.id === second.id && !("value" in k)));
  const later = await projects.apiKeys.update(second.id, { project_id: project.id, expires_in_seconds: 900 });
  assert.ok(later.expires_at > second.expires_at);
  assert.equal((await projects.apiKeys.retrieve(second.id, { project_id: project.id })).expires_at, later.expires_at);
  assert.equal((await projects.apiKeys.delete(second.id, { project_id: project.id })).deleted, true);
  await rejects(projects.apiKeys.retrieve(second.id, { project_id: project.id }), 404);
});

await step("a minted key works until its account is deleted", async () => {
  const user = new OpenAI({ apiKey: account.api_key.value, baseURL, maxRetries: 0 });
  assert.ok((await all(user.models.list())).length > 0);
  const chat = await user.chat.completions.create({ model: "gpt-4o-mini", messages: [{ role: "user", content: "hi" }] });
  assert.ok(chat.choices[0].message.content);
  assert.ok((await user.responses.create({ model: "gpt-5-mini", input: "hi" })).output_text);
  assert.equal((await accounts.delete(account.id, { project_id: project.id })).deleted, true);
  await rejects(user.models.list(), 401, (e) => e.code === "invalid_api_key");
  await rejects(accounts.delete(account.id, { project_id: project.id }), 404);
});

await step("admin keys", async () => {
  const made = await adminAPIKeys.create({ name: "second", expires_in_seconds: 3600 });
  assert.match(made.value, /^sk-admin-/);
  assert.equal((await adminAPIKeys.retrieve(made.id)).redacted_value, made.redacted_value);
  assert.ok((await all(adminAPIKeys.list({ limit: 1, order: "desc" }))).some((k) => k.id === made.id));
  const other = new OpenAI({ adminAPIKey: made.value, baseURL, maxRetries: 0 });
  await other.admin.organization.projects.retrieve(project.id);
  assert.equal((await adminAPIKeys.delete(made.id)).deleted, true);
  await rejects(other.admin.organization.projects.retrieve(project.id), 401);
});

await step("audit log", async () => {
  const events = await all(auditLogs.list({
    effective_at: { gte: begun }, event_types: ["service_account.created", "service_account.deleted"],
    project_ids: [project.id], limit: 5,
  }));
  assert.equal(events.length, 10);
  assert.equal(events[0].type, "service_account.deleted");
});

await step("archive", async () => {
  assert.equal((await projects.archive(project.id)).status, "archived");
  await rejects(accounts.create(project.id, { name: "late" }), 400);
});
