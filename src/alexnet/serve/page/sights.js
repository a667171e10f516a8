// Where it looks, what it finds alike, and what it gets wrong.
import { ask, get, pause, why } from "/page/api.js";
import { bars, element, only, press } from "/page/elements.js";
import { inWords, number, percent, word } from "/page/words.js";

const LOOKS = ["seen", "gradient", "grad_cam"];
const LABELS = 5;
const MISTAKES = 12;

/** Returns the function that is told of every image. */
export function startSights(about) {
  let [image, looks, near, nearWords] = [null, null, null, ""];
  if (about.data?.measured) mistakes();

  function drawLooks() {
    only("looks-section").hidden = !image;
    if (!image || !looks) return;
    only("looks").replaceChildren(
      ...LOOKS.map((name) => element("li", {}, element("img", { src: looks[name], alt: `${word(name)}, ${looks.label}` }), element("small", { textContent: word(name) }))),
    );
  }

  async function look(label) {
    const mine = image;
    const query = label === undefined ? "" : `?label=${encodeURIComponent(label)}`;
    try {
      const found = await ask(`/v1/explain${query}`, mine, "explanations");
      if (mine !== image) return;
      looks = found;
      drawLooks();
    } catch (error) {
      if (mine === image) only("looks").replaceChildren(element("li", { textContent: why(error) }));
    }
  }

  function labels() {
    const buttons = image.top.slice(0, LABELS).map(({ label, probability }) => {
      const button = element("button", { type: "button", textContent: word("said", { label, share: percent(probability) }) });
      button.addEventListener("click", () => {
        press(buttons, button);
        look(label);
      });
      return button;
    });
    press(buttons, buttons[0]);
    only("looks-labels").replaceChildren(...buttons);
  }

  function drawNear() {
    only("near-section").hidden = !image || !about.data?.splits.train;
    only("near-words").textContent = nearWords ? word(nearWords) : "";
    only("near").replaceChildren(
      ...(near ?? []).map((found) => {
        const alike = found.label === image.top[0].label;
        const words = element("small", { className: alike ? "" : "other" }, found.label, element("br"), found.distance.toPrecision(3));
        return element("li", {}, element("img", { src: found.address, alt: found.label }), words);
      }),
    );
  }

  async function findNear() {
    const mine = image;
    near = null;
    drawNear();
    if (!image || !about.data?.splits.train) return;
    try {
      while (!(await get("/v1/network")).data.neighbors) {
        if (mine !== image) return;
        nearWords = "nearSoon";
        drawNear();
        await pause(3000);
      }
      const found = await ask("/v1/neighbors?k=6", mine, "neighbors");
      if (mine !== image) return;
      [near, nearWords] = [found.nearest, ""];
      drawNear();
    } catch (error) {
      if (mine === image) only("near-words").textContent = why(error);
    }
  }

  async function mistakes() {
    let [found, count] = [null, MISTAKES];
    const draw = () => {
      if (!found) return;
      only("mistakes-section").hidden = false;
      const values = { wrong: number(found.wrong), answered: number(found.answered), wanted: number(found.wanted), split: found.split };
      const key = !found.wrong ? "mistakesNone" : found.answered < found.wanted ? "mistakesSoFar" : "mistakesWords";
      only("mistakes-words").textContent = word(key, values);
      only("mistakes").replaceChildren(...found.mistakes.map(mistake));
      only("more").hidden = found.mistakes.length >= found.wrong || count >= 200;
    };
    const refresh = async () => {
      found = await get(`/v1/mistakes?count=${count}`);
      draw();
    };
    only("more").addEventListener("click", () => {
      count = Math.min(200, count + MISTAKES);
      refresh();
    });
    inWords(draw);
    do {
      await refresh();
      if (found.answered < found.wanted) await pause(4000);
    } while (found.answered < found.wanted);
  }

  inWords(() => {
    drawLooks();
    drawNear();
    if (image) labels();
  });

  return (shown) => {
    [image, looks, nearWords] = [shown, null, ""];
    drawLooks();
    findNear();
    if (!image) return;
    labels();
    look();
  };
}

function mistake(found) {
  const said = found.top[0];
  const label = word("mistake", { label: found.label, said: said.label, share: percent(said.probability) });
  const button = element("button", { type: "button", className: "image", "aria-label": label }, element("img", { src: found.address, alt: "", loading: "lazy" }));
  button.addEventListener("click", () => dispatchEvent(new CustomEvent("look-into", { detail: found })));
  const words = element("div", { className: "about" }, element("b", { textContent: found.label }), element("span", { className: "name", textContent: found.name, title: found.name }));
  words.append(element("ol", { className: "bars" }, ...bars(found.top, percent, found.label)));
  return element("li", {}, button, words);
}
