// The decision rule that `alexnet decide` found, from the files of an export: decision.json, decision.safetensors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <map>
#include <opencv2/core.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

struct Answer {
    std::string decision, label;  // decision: class, unsure or unknown
    double probability;           // of the label, calibrated
};

struct Rule {
    int size = 0, neighbors = 1, unit_length = 0;
    double temperature = 1, unsure_below = 0, limit = 0;
    std::vector<std::string> classes;
    std::map<int, double> thresholds;  // class -> threshold as log odds
    cv::Mat costs, center, projection, references;

    explicit Rule(const std::string& folder) {
        std::smatch found;  // "size" of the outermost object, which is indented by one blank
        std::string config = text(folder + "/config.json");
        if (!std::regex_search(config, found, std::regex("\n \"size\": ([0-9]+)")))
            throw std::runtime_error(folder + " is not an export: config.json has no size");
        size = std::stoi(found[1]);
        std::string names = "{\"classes\": " + text(folder + "/classes.json") + "}";
        cv::FileStorage(names, memory)["classes"] >> classes;
        std::string values = text(folder + "/decision.json");
        if (values.empty()) return;  // the most probable class
        cv::FileStorage rule(values, memory);
        temperature = rule["temperature"], unsure_below = rule["unsure_below"];
        std::vector<std::string> identifiers;  // of the classes; `classes` are their descriptions where there are some
        rule["classes"] >> identifiers;
        for (int c = 0; c < int(identifiers.size()); c++)
            for (cv::FileNode threshold : rule["thresholds"])
                if (threshold.name() == identifiers[c])
                    thresholds[c] = std::log(double(threshold)) - std::log1p(-double(threshold));
        for (cv::FileNode row : rule["costs"]) {
            std::vector<double> cells;
            row >> cells;
            costs.push_back(cv::Mat(cells, true).t());
        }
        cv::FileNode distance = rule["distance"];
        if (distance.empty()) return;
        neighbors = distance["neighbors"], unit_length = distance["unit_length"], limit = distance["limit"];
        center = tensor(folder, "center"), projection = tensor(folder, "projection");
        references = tensor(folder, "references");
    }

    std::vector<cv::String> outputs() const {
        return references.empty() ? std::vector<cv::String>{"logits"} : std::vector<cv::String>{"logits", "features"};
    }

    Answer decide(const cv::Mat& logits, const cv::Mat& features) const {
        cv::Mat log, exponent, p;
        logits.reshape(1, 1).convertTo(log, CV_64F, 1 / temperature);
        cv::exp(log - maximum(log), exponent);
        p = exponent / cv::sum(exponent)[0];
        double margin;
        bool unsure = false;
        int label = costs.empty() ? thresholded(log, margin, unsure) : cheapest(p, margin, unsure);
        std::string decision = unsure || margin < unsure_below ? "unsure" : "class";
        if (!references.empty() && distance(features) > limit) decision = "unknown";
        return {decision, classes[label], p.at<double>(label)};
    }

private:
    static constexpr int memory = cv::FileStorage::READ | cv::FileStorage::MEMORY | cv::FileStorage::FORMAT_JSON;

    static std::string text(const std::string& file) {
        std::ifstream in(file, std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(in), {});
    }

    // A matrix of decision.safetensors: 8 bytes with the length of a JSON header, the header, the numbers.
    static cv::Mat tensor(const std::string& folder, const std::string& name) {
        std::string content = text(folder + "/decision.safetensors");
        std::uint64_t length = 0;
        for (int i = 7; i >= 0; i--) length = length << 8 | std::uint8_t(content.at(i));
        cv::FileStorage header(content.substr(8, length), memory);
        cv::FileNode node = header[name];
        int dimensions = int(node["shape"].size()), rows = dimensions > 1 ? int(node["shape"][0]) : 1;
        const char* numbers = content.data() + 8 + length + int(node["data_offsets"][0]);
        return cv::Mat(rows, int(node["shape"][dimensions - 1]), CV_32F, const_cast<char*>(numbers)).clone();
    }

    static double maximum(const cv::Mat& values) {
        double largest;
        cv::minMaxLoc(values, nullptr, &largest);
        return largest;
    }

    // The difference to the strongest of the other values; infinite for the only one.
    static double odds(const cv::Mat& log, int c, const std::vector<int>& among) {
        double strongest = -INFINITY;
        for (int other : among)
            if (other != c) strongest = std::max(strongest, log.at<double>(other));
        return log.at<double>(c) - strongest;
    }

    int thresholded(const cv::Mat& log, double& margin, bool& unsure) const {
        auto larger = [&](int a, int b) { return log.at<double>(a) < log.at<double>(b); };
        std::vector<int> all, others, reached;
        margin = INFINITY;
        for (int c = 0; c < log.cols; c++) {
            all.push_back(c);
            if (!thresholds.count(c)) others.push_back(c);
        }
        for (auto [c, threshold] : thresholds) {
            double above = odds(log, c, all) - threshold;
            margin = std::min(margin, std::abs(above));
            if (above >= 0) reached.push_back(c);
        }
        int likely = *std::max_element(all.begin(), all.end(), larger);
        if (reached.size() == 1) return reached[0];
        unsure = reached.size() > 1 || others.empty();
        if (unsure) return likely;
        int rest = *std::max_element(others.begin(), others.end(), larger);
        margin = std::min(margin, odds(log, rest, others));
        return rest;
    }

    int cheapest(const cv::Mat& p, double& margin, bool& unsure) const {
        cv::Mat expected = p * costs, sorted;
        cv::sort(expected, sorted, cv::SORT_EVERY_ROW | cv::SORT_ASCENDING);
        margin = sorted.at<double>(1) - sorted.at<double>(0);
        const double *first = expected.ptr<double>(), *last = first + expected.cols;
        unsure = std::min_element(first, last) - first == p.cols;  // the last column, where there is one more
        return int(std::min_element(first, first + p.cols) - first);
    }

    double distance(const cv::Mat& features) const {
        cv::Mat x = features.reshape(1, 1);
        if (unit_length) x = x / std::max(cv::norm(x), 1e-12);
        cv::Mat point = (x - center) * projection;
        std::vector<double> distances;
        for (int i = 0; i < references.rows; i++) distances.push_back(cv::norm(point, references.row(i)));
        int k = std::min(neighbors, references.rows) - 1;
        std::nth_element(distances.begin(), distances.begin() + k, distances.end());
        return distances[k];
    }
};
