// What each role is offered, and what it is not; and one thing that it may do, done.
import { axe, check, given, heading, logIn, open, run } from "./driver.mjs";

const button = (page, name) => page.locator("main").getByRole("button", { name, exact: true });

/** On the page that is shown: these are there, those are not. */
async function offered(page, where, names, others) {
  for (const name of names) {
    await button(page, name).waitFor();
    check(!(await button(page, name).getAttribute("aria-disabled")) || /^(Expose|Revert)$/.test(name), `${where}: ${name} is shut`);
  }
  for (const name of others) check((await button(page, name).count()) === 0, `${where}: ${name} is offered`);
}

const at = async (page, hash, title, region) => {
  await page.goto(`${given.url}/ui/#/${hash}`);
  await heading(page, title);
  if (region) await page.getByRole("region", { name: region }).waitFor();
};

async function navigation(page, names, others) {
  const nav = page.getByRole("navigation", { name: "Main" });
  for (const name of names) await nav.getByRole("link", { name, exact: true }).waitFor();
  for (const name of others) check((await nav.getByRole("link", { name, exact: true }).count()) === 0, `${name} is in the navigation`);
}

const succeeded = (page) => page.locator("header.head .badge", { hasText: "succeeded" }).waitFor();

/** A backup of a path, from the button to the backup's page; its id. */
async function backUp(page) {
  await at(page, "backups", "Backups");
  await button(page, "New backup").first().click();
  await heading(page, "New backup");
  await page.getByLabel("Paths, one a line", { exact: true }).fill(`${given.data}/folder`);
  await page.getByText("Expected freeze window").waitFor();
  await button(page, "Start the backup").click();
  await heading(page, "Backup");
  await succeeded(page);
  return page.url().split("/").pop();
}

async function show(page) {
  await page.getByRole("link", { name: "Show the backup" }).click();
  await page.getByRole("region", { name: "Facts" }).waitFor();
  await page.locator("header.head .badge", { hasText: "complete" }).waitFor();
  return page.url().split("/").pop();
}

async function administrators(page) {
  await at(page, "repositories", "Repositories");
  await page.getByRole("rowheader", { name: "main" }).waitFor();
  await offered(page, "repositories", [], ["New repository", "Scan main", "Change main", "Forget main"]);
  await at(page, "access", "Access");
  await offered(page, "access", [], ["Enrolments"]);
}

async function operator(browser) {
  const page = await open(browser);
  await logIn(page);
  await navigation(page, ["New backup", "Access"], ["Webhooks", "Audit"]);
  const job = await backUp(page);
  const backup = await show(page);
  await offered(page, "his backup", ["Files", "Verify"], ["Restore", "Restore with its writers", "Delete"]);
  await axe(page, "an operator's backup");
  await at(page, `backups/${backup}/files`, "Files of a backup");
  await page.getByRole("row", { name: /inside\.txt/ }).waitFor();
  await offered(page, "its files", [], ["Restore"]);
  await at(page, `backups/${backup}/restore`, "Restore files"); // by its address
  check((await button(page, "Start the restore").getAttribute("title")) === "Your role may not restore.", "and there it is shut, with the reason");
  await at(page, "backups", "Backups");
  await page.getByRole("rowheader").first().waitFor();
  check((await page.locator("main tbody tr").count()) === 1, "those of others are not his");
  await at(page, `jobs/${job}`, "Backup", "Facts");
  await offered(page, "his job", ["Release"], []);
  await administrators(page);
  return { backup };
}

async function restorer(browser) {
  const page = await open(browser);
  await logIn(page);
  await navigation(page, ["Backups"], ["New backup", "Webhooks", "Audit"]);
  await offered(page, "overview", [], ["New backup"]);
  await at(page, `snapshots/${given.snapshot}`, given.data, "Facts");
  await offered(page, "a snapshot", ["Expose", "Revert"], ["Delete"]);
  await page.getByRole("link", { name: /Download this folder/ }).waitFor();
  await at(page, "sessions", "Sessions");
  await button(page, "New session").click();
  check((await page.getByRole("dialog").getByLabel("Kind").locator("option").allTextContents()).join() === "restore", "no backup session");
  await page.keyboard.press("Escape");
  await administrators(page);
  await at(page, `backups/${given.backup}`, "nightly", "Facts");
  await offered(page, "a backup", ["Restore", "Files", "Verify"], ["Delete", "New backup"]);
  await button(page, "Restore").click();
  await heading(page, "Restore files");
  await page.getByRole("button", { name: "Content of folder" }).click();
  await page.getByRole("checkbox", { name: `Choose ${given.data}/folder/inside.txt` }).check();
  await page.getByLabel("Target directory").fill(given.target);
  await button(page, "Start the restore").click();
  await heading(page, "Restore");
  await succeeded(page);
  return {};
}

async function viewer(browser) {
  const page = await open(browser);
  await logIn(page);
  await navigation(page, ["Backups", "Jobs"], ["New backup", "Webhooks", "Audit"]);
  await offered(page, "overview", [], ["New backup"]);
  await at(page, `backups/${given.backup}`, "nightly", "Facts");
  await offered(page, "a backup", [], ["Restore", "Restore with its writers", "Files", "Verify", "Delete"]);
  await axe(page, "a viewer's backup");
  await at(page, "backups", "Backups");
  await page.getByRole("link", { name: "nightly" }).waitFor();
  await offered(page, "backups", [], ["New backup"]);
  await at(page, `snapshots/${given.snapshot}`, given.data, "Facts");
  await offered(page, "a snapshot", [], ["Expose", "Unexpose", "Revert", "Delete"]);
  check((await page.getByRole("region", { name: "Files in it" }).count()) === 0, "nor a look into it");
  await at(page, `sessions/${given.session}`, "kept");
  await page.locator("header.head .badge", { hasText: "snapshotted" }).waitFor();
  await offered(page, "a session", [], ["Abort", "Release", "Renew lease"]);
  await at(page, "sessions", "Sessions");
  await page.getByRole("link", { name: "kept" }).waitFor();
  await offered(page, "sessions", [], ["New session"]);
  await at(page, `jobs/${given.job}`, "Backup", "Facts");
  await offered(page, "a job", ["Copy as curl"], ["Cancel", "Release"]);
  await administrators(page);
  await button(page, "New token").click(); // his own, which may no more than he
  check((await page.getByRole("dialog").getByLabel("Role").locator("option").count()) === 1, "no other role is his to give");
  await page.getByLabel("Name").fill("reader");
  await page.getByRole("button", { name: "Make the token" }).click();
  const token = await page.locator(".secret").textContent();
  await page.getByRole("button", { name: "I have it" }).click();
  await page.getByRole("rowheader", { name: "reader" }).waitFor();
  return { token };
}

/** A restorer's token with the scope `read`. */
async function reading(browser) {
  const page = await open(browser);
  await logIn(page);
  await at(page, `backups/${given.backup}`, "nightly", "Facts");
  await offered(page, "a backup", ["Files"], ["Restore", "Restore with its writers", "Verify", "Delete"]);
  await at(page, `snapshots/${given.snapshot}`, given.data, "Facts");
  await page.getByRole("region", { name: "Files in it" }).getByText("app.db").waitFor();
  await offered(page, "a snapshot", [], ["Expose", "Revert", "Delete"]);
  await at(page, "sessions", "Sessions");
  await offered(page, "sessions", [], ["New session"]);
  await at(page, "access", "Access");
  await page.getByRole("region", { name: "Roles" }).waitFor();
  await offered(page, "access", [], ["New token"]);
  await page.reload(); // drawn from what is remembered of him, until the daemon has answered
  await heading(page, "Access");
  await page.getByRole("region", { name: "Roles" }).waitFor();
  await offered(page, "access, again", [], ["New token"]);
  await at(page, `backups/${given.backup}/files`, "Files of a backup");
  await offered(page, "its files", [], ["Restore"]);
  await page.getByRole("button", { name: "Content of folder" }).click();
  await page.getByRole("row", { name: /inside\.txt/ }).waitFor();
  return {};
}

/** An operator's token with the scopes `read` and `/backups`. */
async function backups(browser) {
  const page = await open(browser);
  await logIn(page);
  await navigation(page, ["New backup"], ["Webhooks"]);
  await at(page, "sessions", "Sessions");
  await offered(page, "sessions", [], ["New session"]);
  await backUp(page);
  await offered(page, "its job", ["Copy as curl"], ["Cancel", "Release"]); // DELETE /jobs/{id} is not beneath /backups
  const backup = await show(page);
  await offered(page, "its backup", ["Files", "Verify"], ["Restore", "Delete"]);
  return { backup };
}

await run({ operator, restorer, viewer, reading, backups });
