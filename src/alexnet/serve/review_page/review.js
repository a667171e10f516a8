// The suspects, one at a time. A decision is shown as made only after the server has stored it.
import { ApiError, getJson } from "/page/api.js";
import { announce, byId, element } from "/page/elements.js";
import { formatNumber, formatPercent, onLanguageChange, startMessages, text } from "/page/messages.js";

const NUMBER_KEYS = 9;
const token = document.querySelector("meta[name=token]").content;
const review = await getJson("/v1/review");
const { suspects, classes, decisions } = review;
let current = Math.max(suspects.findIndex(({ position }) => !(position in decisions)), 0);
let waiting = Promise.resolve();

async function post(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
    });
  } catch {
    throw new ApiError(0, "");
  }
  const answer = await response.json().catch(() => ({ detail: "" }));
  if (!response.ok) throw new ApiError(response.status, answer.detail);
  return answer;
}

function fail(error) {
  if (!(error instanceof ApiError)) throw error;
  const message = error.status === 0 ? text("e0") : error.status === 401 ? text("e401") : text("eOther", { detail: error.detail ?? error.message });
  byId("notice").textContent = message;
  byId("notice").hidden = false;
}

/** Runs one action after the other: a key that is pressed while the server stores waits for it. */
const inTurn = (action) => (waiting = waiting.then(action).catch(fail));

const shownDecision = (made) =>
  made === undefined ? text("undecided") : { keep: text("kept", made), change: text("changed", made), drop: text("dropped") }[made.decision];

function show() {
  const suspect = suspects[current];
  const done = suspects.filter(({ position }) => position in decisions).length;
  byId("progress").textContent = text("progress", { done: formatNumber(done), total: formatNumber(suspects.length) });
  byId("bar").value = done / suspects.length;
  byId("image").src = `/v1/images/${suspect.position}`;
  byId("image").alt = text("imageAlt", { number: current + 1, total: suspects.length, label: suspect.label });
  byId("path").textContent = suspect.path;
  byId("given").textContent = suspect.label;
  byId("suggested").textContent = suspect.suggested;
  byId("decision").textContent = shownDecision(decisions[suspect.position]);
  byId("classes").replaceChildren(...classes.map((label, number) => classRow(label, number, suspect)));
  byId("neighbors-lead").textContent = text("neighborsLead", { share: `${Math.round(100 * suspect.disagreement)}%` });
  byId("neighbors").replaceChildren(
    ...suspect.neighbors.map(({ position, label }) =>
      element(
        "li",
        {},
        element("img", { src: `/v1/images/${position}`, alt: text("neighborAlt", { label }) }),
        element("small", { textContent: label, className: label === suspect.label ? "" : "other" }),
      ),
    ),
  );
  if (done === suspects.length) {
    byId("notice").textContent = text("finished", { file: review.file });
    byId("notice").hidden = false;
  }
}

function classRow(label, number, suspect) {
  const probability = suspect.probabilities[number];
  const key = number < NUMBER_KEYS ? element("kbd", { textContent: number + 1 }) : element("span");
  const button = element("button", { type: "button" }, key, element("span", { textContent: label }), element("span", { textContent: formatPercent(probability) }));
  button.addEventListener("click", () => decide("change", label));
  const row = element("li", { className: label === suspect.label ? "given" : "" }, button);
  row.style.setProperty("--share", `${100 * probability}%`);
  return row;
}

/** Stores a decision about the suspect that is shown then; without a label it is the suggested one. */
function decide(decision, label) {
  inTurn(async () => {
    const { position } = suspects[current];
    const made = await post("/v1/decisions", { position, decision, label: label ?? suspects[current].suggested });
    decisions[position] = made;
    byId("notice").hidden = true;
    byId("find").value = "";
    current = following(current);
    show();
    announce(text("announcement", { decision: shownDecision(made), label: suspects[current].label, path: suspects[current].path }));
  });
}

/** The next suspect without a decision, from the beginning again after the last; the same one if all are decided. */
function following(from) {
  for (let step = 1; step < suspects.length; step++) {
    const number = (from + step) % suspects.length;
    if (!(suspects[number].position in decisions)) return number;
  }
  return from;
}

function undo() {
  inTurn(async () => {
    let undone;
    try {
      undone = await post("/v1/undo", {});
    } catch (error) {
      if (error.status !== 409) throw error;
      announce(text("nothing"));
      return;
    }
    byId("notice").hidden = true;
    if (undone.decision) decisions[undone.position] = undone.decision;
    else delete decisions[undone.position];
    const number = suspects.findIndex(({ position }) => position === undone.position);
    if (number >= 0) current = number;
    show();
    announce(text("undone", { path: undone.path }));
  });
}

function move(step) {
  inTurn(async () => {
    current = (current + step + suspects.length) % suspects.length;
    show();
  });
}

const accept = () => decide("change");
// By the place of the key, so that it is the same with a Korean or a Cyrillic layout.
const ACTIONS = {
  KeyK: () => decide("keep"),
  KeyS: accept,
  KeyD: () => decide("drop"),
  Delete: () => decide("drop"),
  KeyU: undo,
  ArrowLeft: () => move(-1),
  ArrowRight: () => move(1),
  Slash: () => byId("find").focus(),
};

addEventListener("keydown", (event) => {
  if (event.target === byId("find") || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
  if (digit && digit[1] <= classes.length) {
    event.preventDefault();
    if (!event.repeat) decide("change", classes[digit[1] - 1]);
  } else if (event.code in ACTIONS) {
    event.preventDefault();
    if (!event.repeat) ACTIONS[event.code]();
  }
});

/** The classes that begin with what is typed, else those that contain it. */
function matches() {
  const typed = byId("find").value.trim().toLowerCase();
  if (!typed) return [];
  const starting = classes.filter((label) => label.toLowerCase().startsWith(typed));
  return starting.length ? starting : classes.filter((label) => label.toLowerCase().includes(typed));
}

byId("find").addEventListener("input", () => {
  const [first] = matches();
  [...byId("classes").children].forEach((row, number) => {
    row.classList.toggle("found", classes[number] === first);
    if (classes[number] === first) row.scrollIntoView({ block: "nearest" });
  });
});
byId("find").addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  const [first] = matches();
  if (event.key === "Enter" && first !== undefined) {
    decide("change", first);
    byId("find").blur();
  } else if (event.key === "Escape") {
    byId("find").value = "";
    byId("find").blur();
  }
});

byId("keep").addEventListener("click", () => decide("keep"));
byId("accept").addEventListener("click", accept);
byId("drop").addEventListener("click", () => decide("drop"));
byId("undo").addEventListener("click", undo);
byId("previous").addEventListener("click", () => move(-1));
byId("next").addEventListener("click", () => move(1));

startMessages();
onLanguageChange(() => {
  document.title = `${text("title")} · AlexNet`;
  byId("subtitle").textContent = text("subtitle", { expected: formatNumber(review.expected), images: formatNumber(review.images) });
  byId("file").textContent = text("file", { file: review.file });
  show();
});
