// Expose, Unexpose, Revert and Delete of a snapshot that is kept; what comes of each, the test beside the browser looks up.
import { ask, axe, check, expectFailures, given, heading, logIn, open, picture, run } from "./driver.mjs";

async function all(browser) {
  const page = await open(browser);
  const button = (name) => page.locator("header.head").getByRole("button", { name, exact: true });
  const dialog = page.getByRole("dialog");
  await logIn(page, given.token, `#/snapshots/${given.snapshot}`);
  await heading(page, given.volume);

  await button("Expose").click();
  await dialog.getByLabel("Directory").fill(given.outside);
  await axe(page, "expose");
  await picture(page, "dialog_expose");
  expectFailures(/400/);
  await dialog.getByRole("button", { name: "Expose", exact: true }).click();
  await page.getByRole("alert").locator(".hint").waitFor(); // it lies beneath no root: told, and nothing has happened
  await ask("refused");
  await button("Expose").click();
  await dialog.getByLabel("Directory").fill(given.shown);
  await dialog.getByRole("button", { name: "Expose", exact: true }).click();
  await button("Unexpose").waitFor();
  check((await page.getByRole("alert").count()) === 0, "what was refused before is not told any more");
  await page.getByRole("region", { name: "Facts" }).getByText(given.shown).waitFor();
  await ask("exposed");
  await axe(page, "an exposed snapshot");
  await button("Unexpose").click();
  await button("Expose").waitFor();
  await ask("hidden");

  await button("Revert").click();
  await dialog.getByText("What it holds now is gone").waitFor();
  await axe(page, "revert");
  await picture(page, "dialog_revert");
  await dialog.getByRole("button", { name: "Revert", exact: true }).click();
  await heading(page, "RevertToSnapshot");
  await page.locator("header.head .badge", { hasText: "succeeded" }).waitFor();
  await ask("reverted");

  await page.goto(`${given.url}/ui/#/snapshots/${given.snapshot}`);
  await heading(page, given.volume);
  await button("Expose").click();
  await dialog.getByLabel("Directory").fill(given.shown);
  await dialog.getByRole("button", { name: "Expose", exact: true }).click();
  await button("Unexpose").waitFor();
  await button("Delete").click();
  await dialog.getByText(`It is exposed at ${given.shown}: it is unexposed first.`).waitFor();
  await axe(page, "delete a snapshot");
  await dialog.getByRole("button", { name: "Keep it" }).click();
  await dialog.waitFor({ state: "detached" });
  await button("Delete").click();
  expectFailures(new RegExp(`404.*/snapshots/${given.snapshot}\\)`)); // the event that it is gone may come before the answer
  await dialog.getByRole("button", { name: "Delete the snapshot" }).click();
  await heading(page, "Snapshots");
  await page.locator("main tbody tr").first().waitFor();
  await page.waitForFunction((id) => !document.querySelector(`a[href="#/snapshots/${id}"]`), given.snapshot);
  await ask("deleted");
  return {};
}

await run({ all });
