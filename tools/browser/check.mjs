// Uses the page of a running `trilut serve` in a headless browser, as a person would.
//
//     node check.mjs http://127.0.0.1:8080 [DIRECTORY FOR SCREENSHOTS]

import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const [address, pictures] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

async function open(options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => { if (message.type() === "error") problems.push(message.text()); });
  // The page asks nobody but its own server.
  page.on("request", (request) => {
    if (!request.url().startsWith(address)) problems.push(`asked ${request.url()}`);
  });
  await page.goto(address);
  return { page, problems };
}

const picture = async (page, name) => {
  if (pictures) await page.screenshot({ path: `${pictures}/${name}.png` });
};
const answers = (page) => page.locator("#messages article.assistant p");
const written = (page) => page.waitForFunction(() => document.getElementById("stop").hidden);

async function ask(page, text) {
  await page.fill("#prompt", text);
  await page.press("#prompt", "Enter");
}

const { page, problems } = await open({ viewport: { width: 1100, height: 760 } });
await page.click("#settings summary");
await page.fill("#temperature", "0");
await page.fill("#max_tokens", "60");
await page.click("#settings summary");
await ask(page, "Tell me a story about a fox.");
await page.waitForFunction(() => document.querySelector("#messages article.assistant p")?.textContent);
await written(page);
const story = await answers(page).first().textContent();
assert.match(story, /fox/);
assert.match(await page.textContent("#speed"), /tokens\/s/);
await ask(page, "Who was the story about?");
await page.waitForFunction(() => document.querySelectorAll("#messages article.assistant").length === 2);
await written(page);
await picture(page, "chat");

// An answer that would go on is stopped; what there is stays.
await page.route("**/v1/chat/completions", async (route) => {
  const body = { ...route.request().postDataJSON(), max_tokens: 400, logit_bias: await endless() };
  await route.continue({ postData: JSON.stringify(body) });
});
await page.click("#new");
// Pressed by the page itself: from here, a fast machine has written all of it before the click arrives.
await page.evaluate(() => {
  const messages = document.getElementById("messages");
  const watch = new MutationObserver(() => {
    if (!(messages.querySelector("article.assistant p")?.textContent.length > 5)) return;
    watch.disconnect();
    document.getElementById("stop").click();
  });
  watch.observe(messages, { childList: true, characterData: true, subtree: true });
});
await ask(page, "Tell me a long story.");
await page.waitForFunction(() => document.getElementById("speed").textContent === "stopped");
await written(page);
const stopped = await answers(page).first().textContent();
await page.unroute("**/v1/chat/completions");
await free();

// A reload finds both conversations again, and the settings.
await page.reload();
assert.equal(await page.locator("#conversations li").count(), 2);
assert.equal(await answers(page).first().textContent(), stopped);
await page.locator("#conversations li button").nth(2).click();
assert.equal(await answers(page).first().textContent(), story);
assert.equal(await page.inputValue("#temperature"), "0");
await page.locator("#conversations li button").nth(1).click();
assert.equal(await page.locator("#conversations li").count(), 1);

await page.click("#tab-machine");
await page.waitForFunction(() => document.querySelectorAll("#decode tr").length === 7);
await page.waitForFunction(() => document.querySelectorAll("#slots tr").length > 0);
assert.match(await page.textContent("#facts"), /parameters/);
await picture(page, "machine");
assert.deepEqual(problems, []);

const phone = await open({ viewport: { width: 375, height: 700 }, colorScheme: "dark", hasTouch: true });
await ask(phone.page, "Hello");
await phone.page.waitForFunction(() => document.querySelector("#messages article.assistant p")?.textContent);
await written(phone.page);
const wide = await phone.page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
assert.ok(wide <= 0, `the page is ${wide} pixels too wide for a phone`);
await picture(phone.page, "phone");
await phone.page.click("#tab-machine");
await phone.page.waitForFunction(() => document.querySelectorAll("#decode tr").length === 7);
await picture(phone.page, "phone-machine");
assert.deepEqual(phone.problems, []);

await browser.close();
console.log("the page chats, stops, remembers, and shows the machine");

// Biases that keep the model from ending its answer.
async function endless() {
  const content = "<|end_of_text|><|eot_id|><|endoftext|>";
  const request = { method: "POST", body: JSON.stringify({ content, with_pieces: true }) };
  const { tokens } = await (await fetch(`${address}/tokenize`, request)).json();
  const control = tokens.filter((token) => String(token.piece).length > 4);
  return Object.fromEntries(control.map((token) => [token.id, -100]));
}

// Waits until no answer is being written.
async function free() {
  for (let i = 0; i < 200; i++) {
    const { slots } = await (await fetch(`${address}/slots`)).json();
    if (slots.every((slot) => !slot.busy)) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  assert.fail("the stopped answer was written on");
}
