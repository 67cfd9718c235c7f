// A backup's files: found by looking, chosen, and brought back; with the mouse, and with the keyboard alone.
import { ask, axe, check, expectFailures, given, heading, logIn, open, run } from "./driver.mjs";

const tick = (page, path) => page.getByRole("checkbox", { name: `Choose ${given.data}/${path}`, exact: true });
const twist = (page, name) => page.getByRole("button", { name: `Content of ${name}`, exact: true });
const said = (page, text) => page.getByRole("status").filter({ hasText: text }).waitFor();

async function wizard(page) {
  await logIn(page, given.token, `#/backups/${given.backup}`);
  await page.getByRole("button", { name: "Restore", exact: true }).click();
  await heading(page, "Restore files");
  await said(page, /^Everything/);
}

/** Starts it, and gives what was asked for. */
async function restore(page) {
  await page.getByLabel("Target directory").fill(given.target);
  const asked = page.waitForRequest((request) => request.method() === "POST" && request.url().endsWith("/restore"));
  await page.getByRole("button", { name: "Start the restore" }).click();
  const { paths } = (await asked).postDataJSON();
  await heading(page, "Restore");
  await page.locator("header.head .badge", { hasText: "succeeded" }).waitFor();
  await page.getByText("read back and equal").waitFor();
  return paths;
}

async function choose(browser) {
  const page = await open(browser);
  await logIn(page, given.token, `#/backups/${given.backup}`);
  await heading(page, "nightly");
  await ask("away");
  expectFailures(/404/);
  await page.getByRole("button", { name: "Restore", exact: true }).click();
  await heading(page, "Restore files");
  const trouble = page.locator(".files").getByRole("alert");
  await trouble.getByText("repository main", { exact: false }).first().waitFor();
  check((await trouble.locator(".hint").count()) === 1, "the daemon's hint is told");
  await axe(page, "a backup that cannot be looked into");
  await ask("back");
  await page.getByRole("button", { name: "Try again" }).click();
  await trouble.waitFor({ state: "detached" });

  // the only directory of the folder where the look begins is open already
  await twist(page, "folder").waitFor();
  await page.getByText("→ folder/inside.txt").waitFor();
  check((await page.locator(".files tbody tr").count()) === 6, "what was backed up, and what lies in it"); // data; empty, folder, link, many, odd
  const odd = page.getByRole("checkbox", { name: `Choose ${given.data}/odd\\xff`, exact: true });
  check(await odd.isDisabled(), "a name that cannot be given back is not offered");
  await page.getByRole("row", { name: /odd\\xff/ }).getByText("choose the folder it lies in").waitFor();
  check((await twist(page, "odd\\xff").count()) === 0, "nor opened");

  // from here on by the keyboard alone
  await twist(page, "folder").focus();
  await page.keyboard.press("Enter");
  await tick(page, "folder/inside.txt").waitFor();
  check((await twist(page, "folder").getAttribute("aria-expanded")) === "true", "it says that it is open");
  await twist(page, "deeper").focus();
  await page.keyboard.press("Space");
  await tick(page, "folder/deeper/deep.bin").waitFor();
  await tick(page, "folder/deeper/deep.bin").focus();
  await page.keyboard.press("Space");
  await said(page, "One thing chosen");
  check(await tick(page, "folder").evaluate((box) => box.indeterminate && !box.checked), "a folder shows that something beneath it is chosen");
  await axe(page, "a file is chosen");
  return { paths: await restore(page) };
}

async function several(browser) {
  const page = await open(browser);
  await wizard(page);
  await twist(page, "folder").click();
  await tick(page, "folder/inside.txt").check();
  await tick(page, "folder/beside.txt").check();
  await said(page, "2 things chosen");
  await tick(page, "folder").check();
  await said(page, "One thing chosen"); // with what lies in it
  check((await tick(page, "folder/inside.txt").isDisabled()) && (await tick(page, "folder/inside.txt").isChecked()), "it comes with its folder");

  // page by page, and the keyboard goes on where the button was
  await twist(page, "many").click();
  await tick(page, "many/199.txt").waitFor();
  check((await tick(page, "many/200.txt").count()) === 0, "a page at a time");
  await page.getByRole("button", { name: `More of ${given.data}/many` }).focus();
  await page.keyboard.press("Enter");
  await tick(page, "many/229.txt").waitFor();
  await page.waitForFunction((path) => document.activeElement?.dataset.path === path, `${given.data}/many/200.txt`);
  check((await page.getByRole("button", { name: /^More of/ }).count()) === 0, "there are no more");
  await twist(page, "empty").click();
  await page.getByText("This folder is empty.").waitFor();

  // into a folder by its name: what is chosen stays, and the address tells where
  await page.locator(".files").getByRole("link", { name: "many", exact: true }).click();
  await tick(page, "folder").waitFor({ state: "detached" });
  check(decodeURIComponent(page.url()).endsWith(`path=${given.data}/many`), page.url());
  await page.waitForFunction(() => document.activeElement?.closest(".crumbs"));
  await said(page, "One thing chosen");
  await page.goBack();
  await tick(page, "folder").waitFor();
  check(await tick(page, "folder").isChecked(), "it is chosen still");

  await page.getByText("Name paths by hand").click();
  await page.getByLabel("Original paths, one a line").fill(`${given.data}/many/007.txt\n${given.data}/empty\nodd`);
  await said(page, "4 things chosen");
  await page.getByLabel("Target directory").fill(given.target);
  check(/no absolute path/.test(await page.getByRole("button", { name: "Start the restore" }).getAttribute("title")), "what is no path is told");
  await page.getByLabel("Original paths, one a line").fill(`${given.data}/many/007.txt\n${given.data}/empty`);
  await page.getByRole("button", { name: `Do not restore ${given.data}/empty`, exact: true }).click();
  await said(page, "2 things chosen");
  check((await page.getByLabel("Original paths, one a line").inputValue()) === `${given.data}/many/007.txt`, "let go of in the text, too");
  await axe(page, "several are chosen");
  return { paths: await restore(page) };
}

/** From the backup's own page: nothing can be chosen there. */
async function look(browser) {
  const page = await open(browser);
  await logIn(page, given.token, `#/backups/${given.backup}`);
  await page.getByRole("button", { name: "Files", exact: true }).click();
  await heading(page, "Files of a backup");
  await twist(page, "folder").click();
  const inside = page.getByRole("row", { name: /inside\.txt \(file\)/ });
  await inside.getByText("7 B").waitFor();
  await inside.locator("time").last().waitFor();
  check((await page.getByRole("checkbox").count()) === 0, "a look chooses nothing");
  await axe(page, "a backup's files");
  await twist(page, "folder").click();
  await inside.waitFor({ state: "detached" });
  await page.getByRole("navigation", { name: "Folder" }).getByRole("link", { name: "top" }).click();
  await twist(page, given.data.split("/")[1]).waitFor();
  await twist(page, "folder").waitFor(); // through directories with nothing else in them it opens by itself
  await page.reload();
  await twist(page, "folder").waitFor();
  return {};
}

const NARROW = { width: 360, height: 740 };

async function pictures(browser) {
  const seen = [];
  for (const colorScheme of ["light", "dark"]) {
    for (const viewport of [{ width: 1280, height: 900 }, NARROW]) {
      const page = await open(browser, { colorScheme, viewport });
      await wizard(page);
      const name = `${colorScheme}_${viewport.width}`;
      await twist(page, "folder").click();
      await twist(page, "deeper").click();
      await tick(page, "folder/deeper/deep.bin").waitFor();
      await page.screenshot({ path: `${given.pictures}/wizard_all_${name}.png`, fullPage: true });
      await tick(page, "folder/deeper").check();
      await tick(page, "link").check();
      await page.getByText("Name paths by hand").click();
      await said(page, "2 things chosen");
      const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      check(over <= 0, `${name} is ${over} pixels too wide`);
      check(await page.locator(".picker").evaluate((one) => one.scrollWidth <= one.clientWidth), `${name}: the files are too wide`);
      await axe(page, `wizard ${name}`, [colorScheme]);
      await page.screenshot({ path: `${given.pictures}/wizard_some_${name}.png`, fullPage: true });
      seen.push(name);
      await page.context().close();
    }
  }
  return { seen };
}

await run({ choose, several, look, pictures });
