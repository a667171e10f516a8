// The page: the parts know each other only through the image that is shown.
import { get } from "/page/api.js";
import { only } from "/page/elements.js";
import { startNetwork } from "/page/network.js";
import { startImages } from "/page/images.js";
import { startSights } from "/page/sights.js";
import { inWords, number, startWords, word } from "/page/words.js";

const about = await get("/v1/network");

const title = () => {
  const labels = about.labels.map((label) => label.split(",")[0]);
  if (about.classes > 4) return word("others", { some: labels.slice(0, 3).join(", "), count: number(about.classes - 3) });
  const all = labels.length > 1 ? labels.slice(0, -1).join(", ") + word("or") + labels.at(-1) : labels[0];
  return word("title", { all });
};

startWords();
inWords(() => {
  only("title").textContent = title();
  document.title = `${title()} · AlexNet`;
  only("under").textContent = word("under");
  only("over").textContent = word("over", { run: about.run, variant: about.variant, parameters: number(about.parameters) });
  only("notice").textContent = about.missing ? word("noData") : "";
  only("notice").hidden = !about.missing;
});

const watchers = [startNetwork(about), startSights(about)];
startImages(about, (image) => watchers.forEach((shown) => shown(image)));
