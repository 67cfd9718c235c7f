// Every screen, in both themes, in two languages, and on a narrow one: no finding of axe, no overflow, and a picture to look at.
import { mkdirSync } from "node:fs";
import { api, ask, axe, check, expectFailures, given, heading, logIn, open, run, watch } from "./driver.mjs";

async function screensOf(page) {
  const first = async (path, fits = () => true) => (await api(page, path)).items.find(fits)?.id;
  const job = await first("/jobs?operation=Backup");
  const session = await first("/sessions", (one) => one.state === "completed");
  const backup = await first("/backups");
  check(job && session && backup, "the screens have something to show");
  const snapshot = await first("/snapshots");
  const webhook = await first("/webhooks");
  return {
    overview: "", jobs: "jobs", "jobs-none": "jobs?state=failed&operation=Scan", job: `jobs/${job}`, sessions: "sessions", session: `sessions/${session}`,
    new: `new?paths=${encodeURIComponent(given.data)}&label=nightly`, backups: "backups", backup: `backups/${backup}`, files: `backups/${backup}/files`, restore: `backups/${backup}/restore`,
    snapshots: "snapshots", ...(snapshot && { snapshot: `snapshots/${snapshot}` }), writers: "writers", providers: "providers", repositories: "repositories", access: "access",
    enrolments: "access?tab=enrolments", certificates: "access?tab=certificates", webhooks: "webhooks", webhook: `webhooks/${webhook}`, audit: "audit", about: "about",
  };
}

const settled = async (page) => {
  await page.locator("main h1").waitFor();
  await page.waitForFunction(() => !document.querySelector(".loading"));
};

const NARROW = { width: 360, height: 740 };

/** The language of the longer words. */
async function inGerman(page) {
  await page.evaluate(() => localStorage.setItem("quiesced.language", "de"));
  await page.reload();
  await heading(page, "Übersicht");
}

async function all(browser) {
  mkdirSync(given.pictures, { recursive: true });
  const modes = { light: { colorScheme: "light" }, dark: { colorScheme: "dark" }, narrow: { colorScheme: "light", viewport: NARROW }, "narrow-dark": { colorScheme: "dark", viewport: NARROW } };
  const seen = [];
  for (const [mode, options] of Object.entries(modes)) {
    const page = await open(browser, options);
    await page.goto(`${given.url}/ui/`);
    await page.getByLabel("Token").waitFor();
    await axe(page, `login ${mode}`, [options.colorScheme]);
    await page.screenshot({ path: `${given.pictures}/login-${mode}.png` });
    await logIn(page);
    if (options.viewport) await inGerman(page);
    for (const [name, hash] of Object.entries(await screensOf(page))) {
      await page.goto(`${given.url}/ui/#/${hash}`);
      await settled(page);
      if (!options.viewport) await axe(page, `${name} ${mode}`, [options.colorScheme]);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      check(over <= 0, `${name} ${mode} is ${over} pixels too wide`);
      await page.screenshot({ path: `${given.pictures}/${name}-${mode}.png`, fullPage: true });
      seen.push(`${name} ${mode}`);
    }
    await page.context().close();
  }
  return { seen };
}

/** German, the switch of the theme, and the keyboard. */
async function preferences(browser) {
  const page = await open(browser, { colorScheme: "light" });
  await logIn(page);
  await page.getByRole("button", { name: "Deutsch" }).click();
  await heading(page, "Übersicht");
  check((await page.evaluate(() => document.documentElement.lang)) === "de", "the language is told");
  await page.getByRole("button", { name: "Dunkel" }).click();
  const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const dark = await ground();
  await page.reload();
  await heading(page, "Übersicht");
  check((await ground()) === dark && dark !== "rgb(245, 246, 247)", "the theme is remembered");
  await page.getByRole("button", { name: "English" }).click();
  await heading(page, "Overview");
  await page.keyboard.press("Tab");
  await page.evaluate(() => document.activeElement?.blur());
  await page.locator(".skip").focus();
  await page.keyboard.press("Enter");
  check((await page.evaluate(() => document.activeElement?.tagName)) === "H1", "the keyboard reaches the content");
}

/** The overview as it is when nothing is set up, all is well, or something is late: in each theme, and narrow in German. */
async function overview(browser) {
  for (const [mode, options] of Object.entries({ light: { colorScheme: "light" }, dark: { colorScheme: "dark" }, narrow: { colorScheme: "light", viewport: NARROW } })) {
    const page = await open(browser, options);
    await logIn(page);
    if (options.viewport) await inGerman(page);
    await page.getByRole("heading", { level: 2, name: given.verdict[options.viewport ? 1 : 0], exact: true }).waitFor();
    await settled(page);
    await axe(page, `overview ${given.state} ${mode}`);
    check((await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)) <= 0, `overview ${given.state} ${mode} is too wide`);
    await page.screenshot({ path: `${given.pictures}/three_${given.state}_${mode}.png`, fullPage: true });
    await page.context().close();
  }
}

const focused = (page) => page.evaluate(() => { const at = document.activeElement; return at === document.body ? "" : `${at.tagName} ${at.textContent.trim() || at.getAttribute("aria-label")}`; });

/** The keyboard alone: where it begins, where it goes with a new screen, what a dialog does with it, and that what changes takes it from nobody. */
async function keyboard(browser) {
  const page = await open(browser);
  await page.goto(`${given.url}/ui/`);
  await page.getByLabel("Token").waitFor();
  check((await focused(page)).startsWith("INPUT"), "the login begins in its field");
  await page.keyboard.type(given.token);
  await page.keyboard.press("Enter");
  await heading(page, "Overview");
  await page.waitForFunction(() => document.activeElement?.tagName === "H1");
  await page.reload();
  await heading(page, "Overview");
  await page.keyboard.press("Tab");
  check((await focused(page)).startsWith("A Skip"), `the first stop is the way past the navigation: ${await focused(page)}`);
  await page.keyboard.press("Enter");
  check((await focused(page)) === "H1 Overview", "and it leads to the heading");

  const sessions = page.getByRole("link", { name: "Sessions", exact: true });
  await sessions.focus();
  await page.keyboard.press("Enter");
  await heading(page, "Sessions");
  await page.waitForFunction(() => document.activeElement?.tagName === "H1" && document.activeElement.textContent === "Sessions");

  const opener = page.getByRole("button", { name: "New session" });
  await opener.focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  const stops = new Set();
  for (let i = 0; i < 30; i++) {
    await page.keyboard.press("Tab");
    const inside = await page.evaluate(() => document.activeElement === document.body || Boolean(document.activeElement.closest("dialog")));
    check(inside, `the keyboard left the dialog: ${await focused(page)}`);
    stops.add(await focused(page));
  }
  check(stops.size >= 5, `it goes round in it: ${[...stops].join(", ")}`);
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  check((await focused(page)) === "BUTTON New session", `the keyboard is given back: ${await focused(page)}`);

  await page.getByRole("link", { name: "Jobs", exact: true }).focus();
  await page.keyboard.press("Enter");
  await heading(page, "Jobs");
  const row = page.locator("main tbody th a").first();
  await row.focus();
  const before = await page.evaluate(() => document.activeElement.hash);
  await ask("job");
  await page.waitForFunction((hash) => document.querySelector("main tbody th a").hash !== hash, before);
  check((await page.evaluate(() => document.activeElement.hash)) === before, "a new row in front takes the keyboard from nobody");

  await page.getByRole("button", { name: /Account/ }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Log out", exact: true }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Log out", exact: true }).waitFor({ state: "hidden" });
  check(/^BUTTON .*admin|^BUTTON Account/.test(await focused(page)), `a menu gives it back, too: ${await focused(page)}`);

  await page.getByRole("link", { name: "Overview", exact: true }).click();
  const chart = page.getByRole("listbox", { name: /^Freeze windows of the last 2 backups/ });
  await chart.focus();
  const told = () => chart.evaluate((one) => document.getElementById(one.getAttribute("aria-activedescendant"))?.getAttribute("aria-label"));
  await page.waitForFunction(() => document.querySelector(".chart .bar.at"));
  const newest = await told();
  await page.keyboard.press("ArrowLeft");
  await page.waitForFunction((text) => !document.querySelector(".chart .bar.at").getAttribute("aria-label").includes(text), newest);
  check(/^nightly, .*: [\d.]+ m?s$/.test(await told()), `a bar says what it is: ${await told()}`);
  await page.getByRole("region", { name: "Freeze windows" }).locator(".panel-head").getByText(await told()).waitFor(); // for who sees it, too
  const days = page.getByRole("listbox", { name: /^30 days/ }).last();
  await days.focus();
  await page.keyboard.press("Home");
  await page.waitForFunction(() => document.querySelector(".day.at")?.getAttribute("aria-label").endsWith("no backup"));
  await axe(page, "in the middle of a chart");
  await chart.focus();
  await page.keyboard.press("Enter");
  await heading(page, "nightly");

  await page.setViewportSize(NARROW);
  const menu = page.getByRole("button", { name: "Navigation" });
  await menu.focus();
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: "Writers" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("link", { name: "Writers" }).waitFor({ state: "hidden" });
  check((await page.evaluate(() => document.activeElement.getAttribute("aria-label"))) === "Navigation", "and the narrow navigation");
  await menu.click();
  await page.locator("#nav a[aria-current]").click();
  await page.getByRole("link", { name: "Writers" }).waitFor({ state: "hidden" }); // who is there already sees it again
}

/** Nothing is answered and nothing is closed, as behind a cable that was pulled: the page notices, and what happens afterwards arrives again. */
async function silent(browser) {
  const page = await open(browser);
  await logIn(page, given.token, "#/jobs");
  await page.locator(".freshness", { hasText: "live" }).waitFor();
  let speak;
  const silence = new Promise((done) => (speak = done));
  await page.route(() => true, (route) => silence.then(() => route.continue()).catch(() => undefined));
  await page.getByText("No contact with the daemon.").waitFor();
  // what is read aloud is said once, though the age beside it goes on
  await page.evaluate(() => {
    window.aloud = 0;
    new MutationObserver((changes) => changes.forEach(({ target }) => (target.nodeType === 1 ? target : target.parentElement)?.closest("[role=alert], [role=status], [aria-live]") && window.aloud++))
      .observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  const age = () => page.locator(".banner").textContent();
  for (let i = 0; i < 3; i++) {
    const was = await age();
    await page.waitForFunction((text) => document.querySelector(".banner").textContent !== text, was);
  }
  check((await page.evaluate(() => window.aloud)) === 0, "nothing is read aloud again and again");
  const anew = page.waitForRequest((request) => request.url().includes("/events"));
  speak();
  await page.getByText("No contact with the daemon.").waitFor({ state: "detached" });
  await anew;
  await page.locator(".freshness", { hasText: "live" }).waitFor();
  await ask("job");
  await page.locator("main tbody tr").nth(1).waitFor();
}

/** Headers that the dashboard relies on, and its weight over the wire. */
async function weight(browser) {
  const page = await open(browser);
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  let bytes = 0;
  session.on("Network.loadingFinished", (event) => (bytes += event.encodedDataLength));
  await page.goto(`${given.url}/ui/`);
  await page.getByLabel("Token").waitFor();
  const interactive = await page.evaluate(() => performance.now());
  const policy = await page.evaluate(async () => (await fetch("/ui/")).headers.get("content-security-policy"));
  check(policy.includes("require-trusted-types-for 'script'"), policy);
  return { bytes, interactive };
}

/** 10,000 jobs scroll without being loaded all at once. */
async function many(browser) {
  const page = await open(browser);
  await logIn(page, given.token, "#/jobs");
  const rows = page.locator("main tbody tr");
  await rows.nth(49).waitFor();
  check((await rows.count()) <= 150, "only what is near is loaded");
  const before = await rows.count();
  for (let i = 0; i < 4; i++) {
    const had = await rows.count();
    await page.evaluate(() => window.scrollTo(0, document.body.scrollHeight));
    await page.waitForFunction((n) => document.querySelectorAll("main tbody tr").length > n, had);
  }
  const after = await rows.count();
  check(after > before && after < 1000, `${before} rows became ${after}`);
  const ids = await page.locator("main tbody th a").evaluateAll((links) => links.map((link) => link.hash));
  check(new Set(ids).size === ids.length, "no job twice");
  check(ids.every((id, i) => i === 0 || id < ids[i - 1]), "newest first");
  await page.getByLabel("State").selectOption("failed");
  await page.waitForFunction(() => [...document.querySelectorAll("main tbody .badge")].every((one) => one.textContent === "failed") && document.querySelector("main tbody tr"));
  check(/state=failed/.test(page.url()), "the filter is in the address");
  return { before, after };
}

/** The daemon goes and comes back beneath the page. */
async function restart(browser) {
  const page = await open(browser);
  await logIn(page, given.token, "#/jobs");
  await page.locator("main tbody tr").first().waitFor();
  expectFailures(/ERR_|Failed to load resource/);
  await ask("stop");
  await page.getByText("No contact with the daemon.").waitFor();
  check(await page.locator("main tbody tr").first().isVisible(), "what was known stays to be seen");
  await ask("start");
  await page.getByText("No contact with the daemon.").waitFor({ state: "detached" });
  await page.getByRole("link", { name: "About" }).click();
  await page.getByText("ready", { exact: true }).waitFor();
}

/** Two tabs of one login; logging out everywhere ends both, and the page comes back to where it was. */
async function tabs(browser) {
  const one = await open(browser);
  const streams = [];
  one.context().on("request", (request) => request.resourceType() === "eventsource" && streams.push(request.url()));
  await logIn(one);
  const live = (page) => page.locator(".freshness", { hasText: "live" }).waitFor();
  await live(one);
  const two = await one.context().newPage();
  watch(two);
  await two.goto(`${given.url}/ui/#/writers`);
  await heading(two, "Writers");
  await live(two);
  check(streams.length === 1, `one stream for both: ${streams}`);
  await one.goto(`${given.url}/ui/#/jobs`);
  await two.goto(`${given.url}/ui/#/jobs`);
  await ask("job"); // seen by both within a moment, though nobody polls for it that often
  for (const page of [one, two]) await page.locator("main tbody .badge", { hasText: "succeeded" }).first().waitFor();
  const taken = one.context().waitForEvent("request", (request) => request.resourceType() === "eventsource");
  await one.goto("about:blank"); // who led is gone: the other goes on, from where he was
  check(/after=\d+/.test((await taken).url()), `what came in between is not missed: ${(await taken).url()}`);
  await live(two);
  await one.goto(`${given.url}/ui/`);
  expectFailures(/401/);
  await one.getByRole("button", { name: /Account/ }).click();
  await one.getByRole("button", { name: "Log out everywhere" }).click();
  await one.getByLabel("Token").waitFor();
  await two.reload();
  await two.getByLabel("Token").waitFor();
  await two.getByLabel("Token").fill("qsd1_wrong");
  await two.getByRole("button", { name: "Log in" }).click();
  await two.getByText("Not accepted.").waitFor();
  await axe(two, "login refused");
  await two.getByLabel("Token").fill(given.token);
  await two.getByRole("button", { name: "Log in" }).click();
  await heading(two, "Jobs"); // where it was
}

/** In by the browser's client certificate, as whom the certificate says; out when it is revoked; and not at all without one. */
async function certificate(browser) {
  const press = (page) => page.getByRole("button", { name: "Use this browser's client certificate" }).click();
  const none = await open(browser);
  expectFailures(/401/);
  await none.goto(`${given.url}/ui/`);
  await press(none);
  await none.getByText("Not accepted.").waitFor();
  await none.context().close();
  const page = await open(browser, { clientCertificates: [{ origin: given.url, certPath: given.cert, keyPath: given.key }] });
  await page.goto(`${given.url}/ui/#/jobs`);
  await press(page);
  await heading(page, "Jobs");
  await page.getByRole("button", { name: "Account of console" }).click();
  await page.locator("#account").getByText("viewer").waitFor();
  await page.keyboard.press("Escape");
  check((await page.getByRole("link", { name: "New backup" }).count()) === 0, "a viewer is offered no backup");
  await page.reload();
  await heading(page, "Jobs"); // the cookie and the certificate together
  await page.locator(".freshness", { hasText: "live" }).waitFor();
  await ask("revoke");
  await page.getByText("Your login has ended.").waitFor();
  await press(page);
  await page.getByText("Not accepted.").waitFor();
}

/** A token that is revoked under the page, and one while it is away. */
async function ended(browser) {
  const page = await open(browser);
  await logIn(page, given.short[0], "#/jobs");
  await heading(page, "Jobs");
  expectFailures(/401/);
  await ask("revoke", 0);
  await page.getByText("Your login has ended.").waitFor();
  await page.getByLabel("Token").fill(given.short[1]);
  await page.getByRole("button", { name: "Log in" }).click();
  await heading(page, "Jobs");
  await page.goto("about:blank");
  await ask("revoke", 1);
  await page.goto(`${given.url}/ui/#/jobs`); // drawn for whom it knew, until the daemon says no
  await page.getByText("Your login has ended.").waitFor();
  await page.getByLabel("Token").fill(given.token);
  await page.getByRole("button", { name: "Log in" }).click();
  await heading(page, "Jobs");
}

await run({ all, overview, preferences, keyboard, weight, many, restart, silent, tabs, certificate, ended });
