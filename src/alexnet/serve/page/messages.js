// All text of the page, by language; {name} is a placeholder.
export const MESSAGES = {
  en: {
    languageName: "English",
    skip: "Skip to the content",
    image: "Image",
    moreClasses: "{names} and {count} more",
    subtitle: "Classify images and inspect the network. All computation runs on the server; no data is sent elsewhere.",
    overline: "AlexNet · {run} · {variant}, {parameters} parameters",
    drop: "Drop or paste images here",
    choose: "Choose images",
    camera: "Use the camera",
    cameraStop: "Stop the camera",
    capture: "Capture this frame",
    cameraError: "The camera is not available: {reason}",
    cameraFrame: "camera",
    tray: "Input images",
    noImage: "No image yet",
    computing: "Computing …",
    samples: "Or choose a held-out image:",
    sample: "{split} image {position}, true class {label}",
    classProbability: "{label}, {probability}",
    announcement: "{name}: {label}, {probability}",
    duration: "computed in {ms} ms",
    truth: "true class: {label}",
    network: "Network",
    networkLead: "Drawn in the style of figure 2 of the paper. Select a layer to see its feature maps for the image, then a feature map or unit to see which images activate it most.",
    layers: "Layers",
    mapsTitle: "{layer}: {count} feature maps of {height} × {width}",
    unitsTitle: "{layer}: {count} units",
    outputsTitle: "{layer}: {count} outputs, one per class",
    mapsLead: "Black is zero; each feature map is scaled to its largest value. Use the arrow keys to move between feature maps.",
    unitsLead: "Left: all units, one square each. Right: the units with the largest activations.",
    mapsNone: "Choose an image to see the activations of this layer.",
    kernelsLead: "The first-layer kernels; gray is zero. Choose an image to see the feature maps.",
    tower: "Tower {number}",
    map: "feature map {unit}, largest value {peak}",
    kernelOf: "kernel {unit}",
    unitTitle: "{layer}, {kind} {unit}",
    kindMap: "feature map",
    kindUnit: "unit",
    kindOutput: "class",
    ofTower: " (tower {tower})",
    optimized: "Optimized to maximize the activation",
    optimizedPending: "Optimizing an image …",
    optimizedAlt: "Image optimized to maximize the activation of {title}",
    optimizedError: "The image could not be computed: {reason}",
    kernel: "Kernel",
    topImages: "Training images with the largest activation",
    topImagesNone: "Not available without the dataset.",
    topImagesSoFar: "Among the first {scanned} of {total} training images.",
    topImagesCrop: "Among {scanned} training images; the receptive field is shown.",
    topImagesWhole: "Among {scanned} training images; the receptive field is marked.",
    wholeImages: "Whole images",
    attribution: "Attribution",
    attributionLead: "Evidence for a class: the pixels to which its score is most sensitive (gradient), and the regions of the last convolution that contribute to it (Grad-CAM). Bright frames, stamps or corners suggest that the network relies on an artifact of the data.",
    attributionLabels: "Class to explain",
    input: "network input",
    gradient: "gradient",
    grad_cam: "Grad-CAM",
    neighbors: "Nearest images",
    neighborsLead: "The training images nearest to the image by Euclidean distance in the {count} activations of {layer} (figure 4 of the paper).",
    neighborsPending: "The training images are being indexed; the result will appear here.",
    mistakes: "Mistakes",
    mistakesNote: "{errors} of {evaluated} {split} images are misclassified, the most confident mistakes first. Select an image to inspect it.",
    mistakesSoFar: "{errors} of {evaluated} {split} images so far ({total} in total) are misclassified, the most confident mistakes first.",
    mistakesNone: "None of {evaluated} {split} images so far is misclassified.",
    mistake: "{label}, predicted as {predicted}, {probability}: inspect",
    more: "Show more",
    noData: "The training dataset is not available, so the page cannot show top images, nearest images or mistakes. Restart the server with --data DATA.",
    error: "{name}: {reason}",
    e408: "the upload timed out",
    e413: "the image is too large",
    e415: "not a supported image",
    e422: "the image is damaged",
    e429: "the server is busy; try again",
    e503: "the server did not answer in time; try again",
    e0: "cannot connect to the server",
    eOther: "unexpected error ({status})",
    footer: "This page loads nothing from other servers.",
    docs: "HTTP API",
    metrics: "server metrics",
  },
  ko: {
    languageName: "한국어",
    skip: "본문으로 건너뛰기",
    image: "이미지",
    moreClasses: "{names} 외 {count}개 클래스",
    subtitle: "이미지를 분류하고 신경망 내부를 살펴봅니다. 모든 계산은 서버에서 이루어지며, 데이터는 외부로 전송되지 않습니다.",
    overline: "AlexNet · {run} · {variant}, 파라미터 {parameters}개",
    drop: "이미지를 끌어다 놓거나 붙여 넣으세요",
    choose: "이미지 선택",
    camera: "카메라 사용",
    cameraStop: "카메라 중지",
    capture: "현재 화면 캡처",
    cameraError: "카메라를 사용할 수 없습니다: {reason}",
    cameraFrame: "카메라",
    tray: "입력 이미지",
    noImage: "선택된 이미지 없음",
    computing: "계산 중 …",
    samples: "학습에 사용하지 않은 이미지로 시험해 보기:",
    sample: "{split} 이미지 {position}번, 실제 클래스: {label}",
    classProbability: "{label}, {probability}",
    announcement: "{name}: {label}, {probability}",
    duration: "계산 시간 {ms} ms",
    truth: "실제 클래스: {label}",
    network: "신경망 구조",
    networkLead: "논문의 그림 2와 같은 방식으로 그렸습니다. 층을 선택하면 이미지에 대한 특징 맵이 표시되고, 특징 맵이나 유닛을 선택하면 활성값이 가장 큰 이미지가 표시됩니다.",
    layers: "층",
    mapsTitle: "{layer}: {height} × {width} 특징 맵 {count}개",
    unitsTitle: "{layer}: 유닛 {count}개",
    outputsTitle: "{layer}: 출력 {count}개 (클래스당 하나)",
    mapsLead: "검은색은 0이며, 각 특징 맵은 자신의 최댓값을 기준으로 정규화했습니다. 화살표 키로 이동할 수 있습니다.",
    unitsLead: "왼쪽은 전체 유닛, 오른쪽은 활성값이 가장 큰 유닛입니다.",
    mapsNone: "이미지를 선택하면 이 층의 활성값이 표시됩니다.",
    kernelsLead: "첫 번째 층의 커널입니다. 회색은 0입니다. 이미지를 선택하면 특징 맵이 표시됩니다.",
    tower: "타워 {number}",
    map: "특징 맵 {unit}, 최댓값 {peak}",
    kernelOf: "커널 {unit}",
    unitTitle: "{layer}, {kind} {unit}",
    kindMap: "특징 맵",
    kindUnit: "유닛",
    kindOutput: "클래스",
    ofTower: " (타워 {tower})",
    optimized: "활성값이 최대가 되도록 최적화한 이미지",
    optimizedPending: "이미지를 최적화하는 중 …",
    optimizedAlt: "{title}의 활성값이 최대가 되도록 최적화한 이미지",
    optimizedError: "이미지를 계산하지 못했습니다: {reason}",
    kernel: "커널",
    topImages: "활성값이 가장 큰 학습 이미지",
    topImagesNone: "데이터셋이 없어 표시할 수 없습니다.",
    topImagesSoFar: "지금까지 확인한 학습 이미지: {total}장 중 {scanned}장",
    topImagesCrop: "학습 이미지 {scanned}장 중 상위 이미지의 수용 영역입니다.",
    topImagesWhole: "학습 이미지 {scanned}장 중 상위 이미지이며, 수용 영역을 표시했습니다.",
    wholeImages: "전체 이미지 보기",
    attribution: "판단 근거",
    attributionLead: "클래스 점수에 가장 민감한 픽셀(기울기)과, 점수에 기여한 마지막 합성곱 층의 영역(Grad-CAM)입니다. 테두리나 도장, 모서리가 밝다면 신경망이 데이터의 아티팩트에 의존하고 있을 가능성이 있습니다.",
    attributionLabels: "설명할 클래스",
    input: "신경망 입력",
    gradient: "기울기",
    grad_cam: "Grad-CAM",
    neighbors: "가장 가까운 이미지",
    neighborsLead: "{layer}의 활성값 {count}개에서 유클리드 거리가 가장 가까운 학습 이미지입니다(논문의 그림 4).",
    neighborsPending: "학습 이미지의 색인을 만드는 중입니다. 완료되면 결과가 표시됩니다.",
    mistakes: "오분류",
    mistakesNote: "{split} 이미지 {evaluated}장 중 {errors}장이 잘못 분류되었습니다. 신뢰도가 높은 순서로 표시하며, 선택하면 자세히 볼 수 있습니다.",
    mistakesSoFar: "지금까지 평가한 {split} 이미지 {evaluated}장(전체 {total}장) 중 {errors}장이 잘못 분류되었습니다. 신뢰도가 높은 순서로 표시합니다.",
    mistakesNone: "지금까지 평가한 {split} 이미지 {evaluated}장 중 잘못 분류된 것은 없습니다.",
    mistake: "실제 {label}, 예측 {predicted}, {probability}: 자세히 보기",
    more: "더 보기",
    noData: "학습 데이터셋이 없어 활성값이 큰 이미지, 가장 가까운 이미지, 오분류를 표시할 수 없습니다. --data DATA 옵션으로 서버를 다시 시작하세요.",
    error: "{name}: {reason}",
    e408: "업로드 시간이 초과되었습니다",
    e413: "이미지가 너무 큽니다",
    e415: "지원하지 않는 이미지입니다",
    e422: "손상된 이미지입니다",
    e429: "서버가 사용 중입니다. 다시 시도하세요",
    e503: "서버가 제시간에 응답하지 않았습니다. 다시 시도하세요",
    e0: "서버에 연결할 수 없습니다",
    eOther: "예기치 않은 오류 ({status})",
    footer: "이 페이지는 다른 서버에서 아무것도 불러오지 않습니다.",
    docs: "HTTP API",
    metrics: "서버 메트릭",
  },
};

const STORAGE_KEY = "language";
const preferred = (navigator.languages ?? [navigator.language]).map((tag) => tag.slice(0, 2)).find((tag) => tag in MESSAGES);
let language = localStorage.getItem(STORAGE_KEY) ?? preferred ?? "en";
if (!(language in MESSAGES)) language = "en";
const listeners = [];

export const text = (key, values = {}) => MESSAGES[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
export const formatNumber = (value) => value.toLocaleString(language);
export const formatPercent = (share) => (share > 0.9995 && share < 1 ? "99.9%" : (100 * share).toFixed(1) + "%");

/** Calls `listener` now, and after every change of the language. */
export function onLanguageChange(listener) {
  listeners.push(listener);
  listener();
}

/** Fills in the texts of the page, and starts the language button. */
export function startMessages() {
  const button = document.getElementById("language");
  const languages = Object.keys(MESSAGES);
  const next = () => languages[(languages.indexOf(language) + 1) % languages.length];
  onLanguageChange(() => {
    document.documentElement.lang = language;
    for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
    for (const element of document.querySelectorAll("[data-text-label]")) element.setAttribute("aria-label", text(element.dataset.textLabel));
    button.textContent = MESSAGES[next()].languageName;
    button.lang = next();
  });
  button.addEventListener("click", () => {
    language = next();
    localStorage.setItem(STORAGE_KEY, language);
    listeners.forEach((listener) => listener());
  });
}
