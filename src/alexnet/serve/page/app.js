// Entry point of the page. Its parts communicate only through the image that is shown.
import { getJson } from "/page/api.js";
import { byId } from "/page/elements.js";
import { startExplanations } from "/page/explanations.js";
import { startImages } from "/page/images.js";
import { formatNumber, onLanguageChange, startMessages, text } from "/page/messages.js";
import { startNetwork } from "/page/network.js";

const LISTED_CLASSES = 3;
const NAME_LENGTH = 32;

const about = await getJson("/v1/network");

const shorten = (name) => (name.length > NAME_LENGTH ? `${name.slice(0, NAME_LENGTH - 1)}…` : name);
const title = () => {
  const names = about.labels.map(shorten);
  if (about.classes <= LISTED_CLASSES + 1) return names.join(", ");
  return text("moreClasses", { names: names.slice(0, LISTED_CLASSES).join(", "), count: formatNumber(about.classes - LISTED_CLASSES) });
};

startMessages();
onLanguageChange(() => {
  byId("title").textContent = title();
  document.title = `${title()} · AlexNet`;
  byId("subtitle").textContent = text("subtitle");
  byId("overline").textContent = text("overline", { run: about.run, variant: about.variant, parameters: formatNumber(about.parameters) });
  const notices = about.members > 1 ? [text("ensemble", { count: about.members, shown: about.shown_network })] : [];
  if (about.data_unavailable) notices.push(text(about.cross_validation ? "noDataOfCrossValidation" : "noData"));
  byId("notice").textContent = notices.join(" ");
  byId("notice").hidden = !notices.length;
});

const listeners = [startNetwork(about), startExplanations(about)];
startImages(about, (image) => listeners.forEach((listener) => listener(image)));
