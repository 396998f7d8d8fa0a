"use strict";
// The page of a trilut server: chats that stay in this browser, and a look at the machine.

const element = (id) => document.getElementById(id);
const store = {
  read(name, otherwise) {
    try { return JSON.parse(localStorage.getItem(name)) ?? otherwise; } catch { return otherwise; }
  },
  write(name, value) {
    try { localStorage.setItem(name, JSON.stringify(value)); }
    catch { notice("The conversation cannot be kept: this browser's storage is full."); }
  },
};

// ---- the server

async function call(path, options = {}) {
  const headers = { ...options.headers };
  const key = sessionStorage.getItem("trilut.key");
  if (key) headers.authorization = `Bearer ${key}`;
  if (options.body) headers["content-type"] = "application/json";
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) {
    // Another call may have got a key meanwhile.
    if (key === sessionStorage.getItem("trilut.key")) await askForKey(Boolean(key));
    return call(path, options);
  }
  return response;
}

class NoKey extends Error {
  constructor() { super("The server asks for a key, and none was given."); }
}

let asking = null;
function askForKey(wrong) {
  asking ??= new Promise((done, fail) => {
    const dialog = element("key-dialog");
    element("key-wrong").hidden = !wrong;
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      asking = null;
      if (dialog.returnValue !== "use") return fail(new NoKey());
      sessionStorage.setItem("trilut.key", element("key").value);
      done();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}
element("key-cancel").addEventListener("click", () => element("key-dialog").close());

async function json(path) {
  const response = await call(path);
  if (!response.ok) throw new Error(await reason(response));
  return response.json();
}

async function reason(response) {
  try { return (await response.json()).error.message; }
  catch { return `The server answered ${response.status}.`; }
}

function notice(text) { element("notice").textContent = text; }

// ---- conversations

let conversations = store.read("trilut.conversations", []);
let current = null; // of conversations, or one that has no message yet
let writing = null; // { conversation, controller } while an answer comes

const blank = () => ({ id: crypto.randomUUID?.() ?? String(Math.random()), title: "", messages: [] });
// An answer of which nothing has come yet is not kept.
const said = (conversation) => ({ ...conversation, messages: conversation.messages.filter(({ content }) => content) });
const keep = () => store.write("trilut.conversations", conversations.map(said));

// Another tab has changed the conversations. The one that is being answered here stays as it is here.
addEventListener("storage", (event) => {
  if (event.key !== null && event.key !== "trilut.conversations") return;
  const mine = writing?.conversation;
  conversations = store.read("trilut.conversations", []).map((other) => other.id === mine?.id ? mine : other);
  const gone = current.messages.length && current !== mine ? blank() : current;
  const now = conversations.find(({ id }) => id === current.id) ?? gone;
  const changed = JSON.stringify(now) !== JSON.stringify(current);
  current = now;
  showConversations();
  if (changed) showMessages();
});

function open(conversation) {
  current = conversation;
  notice("");
  showConversations();
  showMessages();
}

function showConversations() {
  element("conversations").replaceChildren(...conversations.map((conversation) => {
    const item = document.createElement("li");
    const choose = document.createElement("button");
    choose.type = "button";
    choose.textContent = conversation.title;
    choose.setAttribute("aria-current", String(conversation === current));
    choose.addEventListener("click", () => open(conversation));
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Delete “${conversation.title}”`);
    remove.addEventListener("click", () => {
      if (writing?.conversation === conversation) writing.controller.abort();
      conversations = conversations.filter((other) => other !== conversation);
      keep();
      if (current === conversation) open(blank()); else showConversations();
    });
    item.append(choose, remove);
    return item;
  }));
}

function article(message) {
  const article = document.createElement("article");
  article.className = message.role;
  const name = document.createElement("h3");
  name.textContent = message.role === "user" ? "You" : "Model";
  const text = document.createElement("p");
  text.textContent = message.content;
  article.append(name, text);
  return article;
}

function showMessages() {
  const messages = element("messages");
  messages.replaceChildren(...current.messages.map(article));
  if (writing?.conversation === current) messages.lastElementChild?.classList.add("writing");
  messages.scrollTop = messages.scrollHeight;
  showButtons();
}

function showButtons() {
  element("stop").hidden = !writing;
  element("send").disabled = Boolean(writing);
  element("again").hidden = Boolean(writing) || !current.messages.length;
}

// ---- settings

const numbers = ["temperature", "top_k", "top_p", "min_p", "max_tokens", "seed"];

// What is sent, and the names of what cannot be.
function settings() {
  const chosen = {}, ignored = [];
  for (const name of numbers) {
    const input = element(name);
    if (!input.validity.valid) ignored.push(input.labels[0].textContent.trim());
    else if (input.value !== "") chosen[name] = Number(input.value);
  }
  return { chosen, ignored };
}

function keepSettings() {
  const kept = { system: element("system").value };
  for (const name of numbers) kept[name] = element(name).value;
  store.write("trilut.settings", kept);
}

// ---- answers

// What the model reads. Many templates want turns that alternate: messages that got no answer are one turn with
// the next.
function turns({ messages }) {
  const turns = [];
  for (const { role, content } of messages) {
    const last = turns.at(-1);
    if (role === "user" && last?.role === "user") last.content += `\n\n${content}`;
    else turns.push({ role, content });
  }
  return turns;
}

async function answer() {
  const conversation = current;
  const controller = new AbortController();
  const system = element("system").value.trim();
  const messages = turns(conversation);
  const { chosen, ignored } = settings();
  if (system) messages.unshift({ role: "system", content: system });
  const message = { role: "assistant", content: "" };
  conversation.messages.push(message);
  writing = { conversation, controller };
  notice(ignored.length ? `Not used, because the value is not allowed: ${ignored.join(", ")}.` : "");
  showMessages();
  element("speed").textContent = "reading the prompt …";
  let pieces = 0, first = 0, kept = performance.now();
  try {
    const body = JSON.stringify({ messages, stream: true, ...chosen });
    const response = await call("/v1/chat/completions", { method: "POST", body, signal: controller.signal });
    if (!response.ok) throw new Error(await reason(response));
    for await (const chunk of chunks(response.body)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const text = chunk.choices[0]?.delta?.content;
      if (text) {
        message.content += text;
        pieces += 1;
        first ||= performance.now();
        write(conversation, message);
        if (performance.now() - kept > 2000 && conversations.includes(conversation)) {
          keep();
          kept = performance.now();
        }
        const seconds = (performance.now() - first) / 1000;
        if (pieces > 4) element("speed").textContent = `${((pieces - 1) / seconds).toFixed(1)} tokens/s`;
      }
      if (chunk.timings) element("speed").textContent = figures(chunk);
    }
  } catch (error) {
    if (error.name === "AbortError") element("speed").textContent = "stopped";
    else { notice(error.message); element("speed").textContent = ""; }
  }
  writing = null;
  if (!message.content) conversation.messages.pop();
  if (conversations.includes(conversation)) keep();
  showMessages();
}

function figures({ timings, choices }) {
  const end = choices[0].finish_reason === "length" ? ", cut at the limit" : "";
  const reused = timings.cache_n ? `, ${timings.cache_n} from the cache` : "";
  return `${timings.predicted_n} tokens, ${timings.predicted_per_second.toFixed(1)} tokens/s; ` +
    `prompt of ${timings.prompt_n + timings.cache_n}${reused}${end}`;
}

// Shows more of an answer, and stays at its end if the reader is there.
function write(conversation, message) {
  if (conversation !== current) return;
  const messages = element("messages");
  const atEnd = messages.scrollHeight - messages.scrollTop - messages.clientHeight < 40;
  messages.lastElementChild.lastElementChild.textContent = message.content;
  if (atEnd) messages.scrollTop = messages.scrollHeight;
}

async function* chunks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
    }
  }
}

function send() {
  const prompt = element("prompt");
  const content = prompt.value.trim();
  if (!content || writing) return;
  prompt.value = "";
  current.messages.push({ role: "user", content });
  if (!conversations.includes(current)) {
    current.title = content.slice(0, 60);
    conversations.unshift(current);
    showConversations();
  }
  keep();
  answer();
}

element("ask").addEventListener("submit", (event) => { event.preventDefault(); send(); });
element("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
element("stop").addEventListener("click", () => writing?.controller.abort());
element("again").addEventListener("click", () => {
  if (writing || !current.messages.length) return;
  if (current.messages.at(-1).role === "assistant") current.messages.pop();
  answer();
});
element("new").addEventListener("click", () => { open(blank()); element("prompt").focus(); });
element("settings").addEventListener("change", keepSettings);
// A reload ends an answer; what there is of it stays.
addEventListener("pagehide", () => { if (conversations.includes(writing?.conversation)) keep(); });

// ---- the machine

const tabs = ["chat", "machine"];
for (const [index, name] of tabs.entries()) {
  const tab = element(`tab-${name}`);
  tab.addEventListener("click", () => select(name));
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = tabs[1 - index];
    select(other);
    element(`tab-${other}`).focus();
  });
}

function select(name) {
  for (const other of tabs) {
    const chosen = other === name;
    element(`tab-${other}`).setAttribute("aria-selected", String(chosen));
    element(`tab-${other}`).tabIndex = chosen ? 0 : -1;
    element(`view-${other}`).hidden = !chosen;
  }
  if (name !== "machine") return;
  if (!described) describe();
  look();
}

function facts(list, entries) {
  list.replaceChildren(...entries.map(([name, value]) => {
    const box = document.createElement("div");
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    box.append(term, text);
    return box;
  }));
}

function rows(body, lines) {
  body.replaceChildren(...lines.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
}

const bytes = (n) => n >= 2 ** 30 ? `${(n / 2 ** 30).toFixed(1)} GiB` : n >= 2 ** 20 ? `${(n / 2 ** 20).toFixed(1)} MiB` : `${Math.round(n / 1024)} KiB`;

function showProps(props) {
  const { machine, plan } = props;
  element("model").textContent = props.model;
  facts(element("facts"), [
    ["CPU", machine.brand || machine.microarchitecture],
    ["Microarchitecture", machine.microarchitecture],
    ["Cores", `${machine.physical_cores} cores, ${machine.logical_cpus} CPUs; ${props.threads} threads used`],
    ["Caches", machine.caches.map((cache) => `L${cache.level} ${bytes(cache.bytes)}`).join(", ")],
    ["Memory", bytes(machine.memory_bytes)],
    ["Hypervisor", machine.hypervisor ?? "none"],
    ["Instruction sets", machine.features.join(" ")],
    ["Model", `${props.model}: ${props.architecture}, ${(props.parameters / 1e6).toFixed(1)} M parameters`],
    ["Read for each token", bytes(props.bytes_per_token)],
    ["Context", `${props.default_generation_settings.n_ctx} tokens`],
    ["Speculation", props.speculate ? `up to ${props.speculate} tokens` : "off"],
    ["Version", props.version],
  ]);
  const line = ({ layer, shape, kernel, tile, reason }) => [layer, shape, kernel, tile, reason];
  rows(element("decode"), plan.decode.map(line));
  rows(element("batch"), plan.batch.map(line));
  rows(element("prefill"), plan.prefill.map(line));
}

const history = [];
let before = null;
let looking = false;
let timer = null; // of the next look

async function look() {
  clearTimeout(timer);
  if (looking || element("view-machine").hidden) return;
  looking = true;
  let again = true;
  try {
    const now = await json("/slots");
    const seconds = before ? now.uptime_seconds - before.uptime_seconds : 0;
    const rate = (name) => seconds > 0 ? Math.max(0, now[name] - before[name]) / seconds : 0;
    history.push(rate("generated_tokens"));
    if (history.length > 60) history.shift();
    const saved = now.prompt_tokens ? Math.round(100 * now.reused_tokens / now.prompt_tokens) : 0;
    facts(element("live"), [
      ["Answers", `${rate("generated_tokens").toFixed(1)} tokens/s`],
      ["Through the model", `${rate("rows").toFixed(1)} tokens/s`],
      ["Busy", `${Math.min(100, 100 * rate("busy_seconds")).toFixed(0)} %`],
      ["Being written", `${now.slots.filter((slot) => slot.busy).length} of ${now.slots.length}`],
      ["Waiting", String(now.waiting)],
      ["Answers so far", String(now.finished)],
      ["Prompts from the cache", `${saved} %`],
    ]);
    rows(element("slots"), now.slots.map((slot, index) => [
      String(index + 1),
      !slot.busy ? "free" : slot.reading ? "reads the prompt" : "writes",
      slot.busy ? String(slot.prompt) : "", slot.busy ? String(slot.generated) : "", String(slot.cached),
    ]));
    draw();
    before = now;
  } catch (error) {
    facts(element("live"), [["No answer", error.message]]);
    // Nobody wants to be asked for the key every second.
    again = !(error instanceof NoKey);
  }
  looking = false;
  if (again) timer = setTimeout(look, 1000);
}

function draw() {
  const most = Math.max(1, ...history);
  const points = history.map((value, index) =>
    `${(index + 60 - history.length) * 600 / 59},${(98 - 94 * value / most).toFixed(1)}`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points.join(" "));
  element("chart").replaceChildren(line);
}

// ---- the beginning

let described = false;

async function describe() {
  try {
    const props = await json("/props");
    described = true;
    showProps(props);
    for (const [name, value] of Object.entries(props.default_generation_settings)) {
      const input = document.getElementById(name);
      if (input) input.placeholder = String(Number(value.toFixed(4)));
    }
    if (!props.chat_template) notice("This model has no chat template: it cannot chat.");
  } catch (error) {
    notice(error.message);
  }
}

const kept = store.read("trilut.settings", {});
element("system").value = kept.system ?? "";
for (const name of numbers) element(name).value = kept[name] ?? "";
open(conversations[0] ?? blank());
describe();
