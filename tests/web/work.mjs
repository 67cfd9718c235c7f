// The administrator's work: a backup made, watched, cancelled, made again, verified and restored, in the browser alone.
import { api, ask, axe, check, expectFailures, given, heading, logIn, open, picture, run } from "./driver.mjs";

async function choose(page, label) {
  await page.getByRole("link", { name: "New backup" }).first().click();
  await heading(page, "New backup");
  await page.getByRole("checkbox", { name: /app \/ app/ }).check();
  await page.getByRole("checkbox", { name: /slow \/ main/ }).check();
  await page.getByLabel("Label").fill(label);
  await page.getByText("Expected freeze window").waitFor();
  await page.getByRole("button", { name: "Start the backup" }).click();
  await heading(page, "Backup");
}

const badge = (page, text) => page.locator("header.head .badge", { hasText: text }).waitFor();

async function work(browser) {
  const page = await open(browser);
  await logIn(page);
  await page.getByText("Nothing is protected yet").waitFor();

  // watched while its writer is slow, then cancelled
  await choose(page, "first");
  await ask("held");
  await badge(page, "running");
  await page.locator(".steps .here").waitFor();
  await axe(page, "a running job");
  await page.getByRole("button", { name: /job/ }).click(); // what runs, from every screen
  await page.locator("#running").getByText("Backup").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Cancel", exact: true }).click();
  await page.getByText("Whatever is frozen is thawed at once.").waitFor();
  await axe(page, "cancel dialog");
  await picture(page, "dialog_cancel_dialog");
  await page.getByRole("button", { name: "Cancel the job" }).click();
  await ask("let_go");
  await badge(page, "cancelled");
  await page.getByText("What was undone").waitFor();

  // again, to its end
  await choose(page, "second");
  await badge(page, "succeeded");
  const log = page.locator(".log");
  await log.getByText("The backup is complete.").waitFor();
  for (const line of ["Made by admin.", "The session is snapshotted.", /Thawed after/, "Backup: succeeded"]) await log.getByText(line).waitFor();
  await page.getByRole("link", { name: "Show the backup" }).click();
  await badge(page, "complete");
  await page.getByText("Quiesce timeline").waitFor();
  check((await page.locator(".lane .held").count()) === 3, "the window and two components have a bar each");

  await page.getByRole("button", { name: "Verify" }).click();
  await heading(page, "Verify");
  await badge(page, "succeeded");
  await page.getByText("Damaged").waitFor();

  await page.getByRole("link", { name: "Backups" }).first().click();
  await page.getByRole("link", { name: "second" }).click();
  await page.getByRole("button", { name: "Restore", exact: true }).click();
  await heading(page, "Restore files");
  check((await page.getByRole("button", { name: "Start the restore" }).getAttribute("aria-disabled")) === "true", "no target, no start");
  expectFailures(/40[03]/);
  await page.getByLabel("Target directory").fill("/nowhere/at/all");
  await page.getByRole("button", { name: "Start the restore" }).click();
  await page.getByRole("alert").getByText(given.target).waitFor(); // the daemon's hint names the roots
  await page.getByLabel("Target directory").fill(given.target);
  await page.getByRole("button", { name: "Start the restore" }).click();
  await heading(page, "Restore");
  await badge(page, "succeeded");
  await page.getByText("read back and equal").waitFor();
  check((await page.locator(".steps .done").count()) === 2, "a restore has its phases, too");

  await page.getByRole("link", { name: "Overview" }).click();
  await page.locator(".hero").waitFor();
  check((await page.locator(".hero h2").textContent()) !== "Not protected", "one good backup protects");
  return { backups: (await api(page, "/backups")).items.length };
}

/** A session by hand: every verb when its turn comes, the others shut with a reason. */
async function verbs(browser) {
  const page = await open(browser);
  await logIn(page, given.token, "#/sessions");
  await page.getByRole("button", { name: "New session" }).click();
  await page.getByLabel("Label").fill("by hand");
  await page.getByRole("button", { name: "Make the session" }).click();
  await heading(page, "by hand");
  const verb = (name) => page.locator(".verbs").getByRole("button", { name, exact: true });
  const press = async (name, state) => {
    await page.locator(`.verbs button:not([aria-disabled])`, { hasText: new RegExp(`^${name}$`) }).click();
    if (state) await page.locator("header.head .badge", { hasText: state }).waitFor();
  };
  check((await verb("Complete").getAttribute("aria-disabled")) === "true", "BackupComplete has no place yet");
  check(/DoSnapshotSet/.test((await verb("Complete").getAttribute("title")) ?? ""), "and says why");
  await press("Gather writers", "identified");
  await press("Set type");
  await page.getByRole("dialog").getByRole("button", { name: "Set type" }).click();
  await press("Add component");
  await page.getByRole("dialog").getByLabel("Component").selectOption({ label: "app / app" });
  await page.getByRole("dialog").getByRole("button", { name: "Add component" }).click();
  await page.getByRole("rowheader", { name: /app \/ app/ }).waitFor();
  await press("Start snapshot set", "set open");
  await press("Add volume");
  await page.getByRole("dialog").getByLabel("Path", { exact: true }).fill(given.data);
  await page.getByRole("dialog").getByRole("button", { name: "Add volume" }).click();
  await press("Prepare", "prepared");
  await press("Take snapshot", "snapshotted");
  await page.getByText("Quiesce timeline").waitFor();
  await page.getByText("Writers by phase").first().waitFor();

  // browse the snapshot while it is there
  const session = page.url();
  await page.getByRole("link", { name: "Snapshots", exact: true }).click();
  await page.locator("main tbody a").first().click();
  await page.getByText("Files in it").waitFor();
  await page.getByRole("link", { name: "folder", exact: true }).click();
  await page.getByText("inside.txt").waitFor();
  check(/path=%2Ffolder/.test(page.url()), "the folder is in the address");
  const download = page.waitForEvent("download");
  await page.getByRole("link", { name: /Download this folder/ }).click();
  const saved = await (await download).path();
  const taken = await ask("tar", saved);

  await page.goto(session);
  await press("Copy");
  await page.getByRole("dialog").getByRole("button", { name: "Copy" }).click();
  await page.getByRole("row", { name: /^Copy succeeded/ }).waitFor();
  await page.getByRole("checkbox", { name: /Succeeded: app/ }).check();
  await press("Complete", "completed");
  await press("Release");
  await page.getByRole("button", { name: "Release the session" }).click();
  await heading(page, "Sessions");
  await page.getByText("by hand").waitFor({ state: "detached" });
  return { taken };
}

const verb = (page, name) => page.locator(".verbs button:not([aria-disabled])", { hasText: new RegExp(`^${name}$`) });
const dialog = (page) => page.getByRole("dialog");
const submit = (page, name) => dialog(page).getByRole("button", { name, exact: true }).click();

/** What may be said of a session and of a component before the backup; each is seen by the daemon. */
async function settings(browser) {
  const page = await open(browser);
  await logIn(page, given.token, "#/sessions");
  await page.getByRole("button", { name: "New session" }).click();
  await page.getByLabel("Label").fill("with settings");
  await dialog(page).getByText("More", { exact: true }).click();
  await page.getByLabel("When a writer fails").selectOption("report");
  await page.getByLabel("Lease in seconds").fill("600");
  await page.getByRole("button", { name: "Make the session" }).click();
  await heading(page, "with settings");
  const id = page.url().split("/").pop();
  const session = () => api(page, `/sessions/${id}`);
  await verb(page, "Set context").click();
  await page.getByLabel("Context", { exact: true }).selectOption("app_rollback");
  await axe(page, "set context");
  await picture(page, "dialog_set_context");
  await submit(page, "Set context");
  await page.getByText("app rollback").waitFor();
  check(/once|chosen already/.test(await page.locator(".verbs").getByRole("button", { name: "Set context" }).getAttribute("title")), "the context is set once");
  await verb(page, "Filter writers").click();
  await dialog(page).getByRole("checkbox", { name: "gate" }).check();
  await axe(page, "filter writers");
  await picture(page, "dialog_filter_writers");
  await submit(page, "Filter writers");
  await page.getByText("one writer", { exact: true }).waitFor();
  await verb(page, "Set type").click();
  await page.getByRole("combobox", { name: "Type" }).selectOption("copy");
  await dialog(page).getByText("What else writers are told").click();
  await dialog(page).getByRole("checkbox", { name: "Parts of files may be backed up" }).check();
  await submit(page, "Set type");
  await verb(page, "Gather writers").click();
  await page.locator("header.head .badge", { hasText: "identified" }).waitFor();
  await verb(page, "Add component").click();
  check((await page.getByRole("combobox", { name: "Component" }).locator("option").allTextContents()).every((name) => !name.startsWith("gate")), "who is left out offers nothing");
  await page.getByRole("combobox", { name: "Component" }).selectOption({ label: "slow / main" });
  await submit(page, "Add component");
  await page.getByRole("button", { name: "Options of slow / main" }).click();
  await page.getByLabel("Options for its writer").fill("level=9");
  await page.getByLabel("Stamp of the backup before").fill("monday");
  await submit(page, "Save");
  await dialog(page).getByText("Saved.").waitFor();
  await axe(page, "component options");
  await picture(page, "dialog_component_options");
  await submit(page, "Done");
  await verb(page, "Start snapshot set").click();
  await page.locator("header.head .badge", { hasText: "set open" }).waitFor();
  await verb(page, "Add volume").click();
  await dialog(page).getByLabel("Path", { exact: true }).fill(given.data);
  await page.getByLabel("Provider").selectOption("copy");
  await dialog(page).getByText("Leave out").click();
  await page.getByLabel("Excluded paths, one a line").fill(`${given.data}/folder/left-out`);
  await submit(page, "Add volume");
  await verb(page, "Add what lies on them").click();
  await page.getByRole("rowheader", { name: /app \/ app/ }).waitFor();
  await page.locator(".verbs button.main", { hasText: "Prepare" }).waitFor();
  const made = await session();
  const [component] = (await api(page, `/sessions/${id}/components`)).items;
  await verb(page, "Abort").click();
  await page.getByRole("button", { name: "Abort the session" }).click();
  await page.locator("header.head .badge", { hasText: "aborted" }).waitFor();
  return { made, component };
}

/** A restore with the writers: one component, to another place, and its writer is told how. */
async function restore(browser) {
  const page = await open(browser);
  await logIn(page, given.token, "#/backups");
  await page.getByRole("link", { name: "nightly" }).click();
  await page.getByRole("button", { name: "Restore with its writers" }).click();
  await heading(page, "nightly");
  await page.locator("header.head .badge", { hasText: "initialized" }).waitFor();
  await verb(page, "Set restore state").click();
  await submit(page, "Set restore state");
  await verb(page, "Gather writers").click();
  await page.locator("header.head .badge", { hasText: "identified" }).waitFor();
  await page.getByRole("checkbox", { name: "Selected: slow / main" }).check();
  await page.getByRole("button", { name: "Options of slow / main" }).click();
  await dialog(page).getByText("Its writer does not know: an authoritative restore, another name.").waitFor();
  await page.getByLabel("Roll forward").selectOption("partial");
  await page.getByLabel("Up to").fill("noon");
  await dialog(page).getByRole("button", { name: "Save", exact: true }).first().click();
  await dialog(page).getByText("Saved.").waitFor();
  await page.getByLabel("Directory").fill(`${given.target}/elsewhere`);
  await submit(page, "Add this target");
  await dialog(page).getByText("Added.").waitFor();
  await dialog(page).getByText(`${given.target}/elsewhere`).waitFor();
  await axe(page, "restore options");
  await picture(page, "dialog_restore_options");
  await submit(page, "Done");
  await verb(page, "PreRestore").click();
  await page.locator("header.head .badge", { hasText: "pre-restored" }).waitFor();
  await verb(page, "Restore files").click();
  check((await dialog(page).getByRole("checkbox", { name: /slow \/ main/ }).isChecked()), "what was selected comes back");
  await submit(page, "Restore files");
  await page.getByRole("row", { name: /^RestoreFiles succeeded/ }).waitFor();
  await page.getByRole("row", { name: /slow \/ main/ }).getByText("all").waitFor();
  await verb(page, "PostRestore").click();
  await page.locator("header.head .badge", { hasText: "completed" }).waitFor();
  const id = page.url().split("/").pop();
  const { items } = await api(page, `/sessions/${id}/components`);

  // and the record of a job is let go
  await page.getByRole("link", { name: "PostRestore" }).click();
  await heading(page, "PostRestore");
  const job = page.url().split("/").pop();
  await page.getByRole("button", { name: "Release" }).click();
  await page.getByRole("button", { name: "Release the job" }).click();
  await heading(page, "Jobs");
  await page.locator("main tbody tr").first().waitFor();
  check(!(await page.locator(`a[href="#/jobs/${job}"]`).count()), "a released job is not listed");
  return { component: items.find((one) => one.writer === "slow") };
}

/** Something is frozen: it is seen within a moment, counted, and thawed by hand. */
async function frozen(browser) {
  const page = await open(browser);
  await logIn(page);
  await page.locator(".freshness", { hasText: "live" }).waitFor();
  await ask("freeze");
  const panel = page.getByRole("region", { name: "Frozen now" });
  await panel.getByText("gate").waitFor();
  await axe(page, "frozen");
  await page.screenshot({ path: given.picture });
  await panel.getByRole("link").first().click();
  const phases = page.locator("table.matrix tr", { hasText: "gate" }).locator("td");
  await phases.nth(3).filter({ hasText: "now" }).waitFor(); // POST /backups says snapshot, from before the freeze until behind the thaw
  check((await phases.filter({ hasText: "now" }).count()) === 1, "one phase is the present one");
  await axe(page, "a session that is frozen");
  await page.goBack();
  await panel.getByRole("button", { name: "Thaw now" }).click();
  await axe(page, "thaw dialog");
  await page.getByRole("button", { name: "Thaw and abort" }).click();
  await panel.waitFor({ state: "detached" });
}

/** File systems are held frozen for a snapshot outside of this host: released by hand, and the timeline has a lane for each. */
async function outside(browser) {
  const page = await open(browser);
  await logIn(page, given.token, `#/sessions/${given.session}`);
  await heading(page, "outside");
  await ask("hold");
  const panel = page.getByRole("region", { name: "Frozen now" });
  await panel.getByText(given.mounted).waitFor();
  await panel.getByRole("button", { name: "Release the hold" }).click();
  await axe(page, "release dialog");
  await picture(page, "dialog_release_dialog");
  await page.getByLabel("Its name outside").fill("vol-7");
  await submit(page, "Release the hold");
  await page.locator("header.head .badge", { hasText: "snapshotted" }).waitFor();
  await panel.waitFor({ state: "detached" });
  const lane = page.locator(".lane.file-system");
  await lane.waitFor();
  check((await lane.locator(".name").textContent()) === given.mounted, "the file system has a lane");
  await page.getByText(/after which everything is thawed/).waitFor(); // the budget beside it
  await axe(page, "timeline with file systems");
  await page.screenshot({ path: given.picture, fullPage: true });
  return { lanes: await lane.count() };
}

/** Tokens, made, shown once, revoked; and the administration around it. */
async function administration(browser) {
  const page = await open(browser);
  await logIn(page, given.token, "#/access");
  await page.getByText("No tokens were made").waitFor();
  await page.getByRole("button", { name: "New token" }).click();
  await page.getByLabel("Name").fill("monitoring");
  await page.getByRole("button", { name: "Make the token" }).click();
  const secret = await page.locator(".secret").textContent();
  await axe(page, "the token");
  await picture(page, "dialog_the_token");
  await page.getByRole("button", { name: "I have it" }).click();
  await page.getByRole("rowheader", { name: "monitoring" }).waitFor();

  const other = await open(browser);
  await logIn(other, secret);
  check((await other.getByRole("button", { name: "New backup" }).count()) === 0, "a viewer is not offered a backup");
  await other.close();

  await page.getByRole("button", { name: "Revoke: monitoring" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
  await page.getByText("No tokens were made").waitFor();

  await page.getByRole("button", { name: "Enrolments" }).click();
  await page.getByRole("button", { name: "New enrolment" }).click();
  await page.getByLabel("Principal").fill("console");
  await page.getByRole("button", { name: "Make the code" }).click();
  await page.locator(".secret").waitFor();
  await page.getByRole("button", { name: "I have it" }).click();
  await page.getByRole("rowheader", { name: "console" }).waitFor();

  await page.getByRole("link", { name: "Webhooks" }).click();
  await page.getByRole("button", { name: "New webhook" }).click();
  await page.getByLabel("Address").fill("https://console.example.org/hook");
  await page.getByLabel("Name").fill("pager");
  await page.getByRole("button", { name: "Make the webhook" }).click();
  check((await page.locator(".secret").textContent()).startsWith("whsec_"), "the secret is shown");
  await page.getByRole("button", { name: "I have it" }).click();
  await page.getByRole("link", { name: "pager" }).click();
  await page.getByRole("button", { name: "Disable" }).click();
  await page.locator("header.head .badge", { hasText: "disabled" }).waitFor();
  await page.getByRole("button", { name: "Change", exact: true }).click();
  await page.getByLabel("Name").fill("siren");
  await page.getByRole("button", { name: "Change it" }).click();
  await heading(page, "siren");
  await page.getByRole("button", { name: "Rotate the secret" }).click();
  await page.getByLabel("The former one signs on for").selectOption("0");
  await page.getByRole("button", { name: "Make a new secret" }).click();
  await page.locator(".secret").waitFor();
  await page.getByRole("button", { name: "I have it" }).click();
  await axe(page, "webhook");
  await picture(page, "dialog_webhook");
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("button", { name: "Delete the webhook" }).click();
  await page.getByText("No webhooks yet").waitFor();

  await page.getByRole("link", { name: "Repositories" }).click();
  await page.getByRole("button", { name: "New repository" }).click();
  await page.getByLabel("Name").fill("second");
  await page.getByLabel("Place").fill(given.place);
  await page.getByRole("button", { name: "Make the repository" }).click();
  await page.getByRole("button", { name: "Change second" }).click();
  await page.getByLabel("Place").fill(`${given.place}/deeper`);
  await page.getByRole("button", { name: "Change it" }).click();
  await page.getByText(`${given.place}/deeper`, { exact: true }).waitFor();
  await page.getByRole("button", { name: "Scan second" }).click();
  await heading(page, "Scan");
  await page.locator("header.head .badge", { hasText: "succeeded" }).waitFor();
  await page.getByRole("link", { name: "Repositories" }).click();
  await page.getByRole("button", { name: "Forget second" }).click();
  await page.getByRole("button", { name: "Forget it" }).click();
  await page.getByRole("button", { name: "Forget second" }).waitFor({ state: "detached" });

  await page.getByRole("link", { name: "Providers" }).click();
  await page.getByLabel("Path", { exact: true }).fill(`${given.place}/../second/.`);
  await page.getByRole("button", { name: "Look" }).click();
  await page.locator("dd", { hasText: given.place }).first().waitFor();

  await page.getByRole("link", { name: "Audit" }).click();
  await page.getByRole("rowheader", { name: "webhookDelete" }).waitFor();
  await page.getByLabel("Operation").fill("tokenCreate");
  await page.getByLabel("Operation").press("Enter");
  await page.getByRole("rowheader", { name: "webhookDelete" }).waitFor({ state: "detached" });
  await page.getByRole("rowheader", { name: "tokenCreate" }).first().waitFor();
  check((await page.locator("main tbody tr").count()) === 1, "one token was made");
  check(!(await page.locator("main").textContent()).includes(secret), "the trail holds no secret");
  return { prefix: secret.slice(0, 4) };
}

/** Deliveries, as they come: one that the receiver refuses, what it answered, sent again by hand, and a test. */
async function deliveries(browser) {
  const page = await open(browser);
  await logIn(page, given.token, `#/webhooks/${given.webhook}`);
  await heading(page, "console");
  const refused = page.getByRole("row", { name: /job\.changed/ });
  await page.getByText("None yet.").waitFor();
  await ask("event");
  await refused.first().getByText(/410/).waitFor();
  await page.locator("header.head .badge", { hasText: "disabled" }).waitFor();
  await refused.first().locator(".badge", { hasText: "failed" }).waitFor();
  await axe(page, "webhook with a refused delivery");
  await ask("listen");
  await page.getByRole("button", { name: "Enable" }).click();
  await page.locator("header.head .badge", { hasText: "active" }).waitFor();
  const failed = refused.filter({ has: page.locator(".badge", { hasText: "failed" }) });
  check((await failed.count()) === 1, "410 is not asked again");
  await failed.getByRole("button", { name: "Redeliver job.changed" }).click();
  await failed.waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Send a test" }).click();
  const test = page.getByRole("row", { name: /a test/ });
  await test.locator(".badge", { hasText: "delivered" }).waitFor();
  await page.getByLabel("State").selectOption("delivered");
  await page.waitForFunction(() => location.hash.includes("state=delivered"));
  await test.waitFor();
  await axe(page, "deliveries");
  await page.screenshot({ path: given.picture, fullPage: true });
  await page.reload();
  await test.waitFor();
  check((await page.getByLabel("State").inputValue()) === "delivered", "a link holds the filter");
  return {};
}

await run({ work, verbs, settings, restore, frozen, outside, administration, deliveries });
