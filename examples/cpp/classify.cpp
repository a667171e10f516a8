// Classify images as `alexnet predict RUN IMAGE ... --csv` does, with OpenCV (4.6 or newer) and nothing else.
//
//   alexnet export RUN --to onnx --out exported
//   apt-get install g++ libopencv-dnn-dev libopencv-imgcodecs-dev
//   g++ -O2 classify.cpp -I/usr/include/opencv4 -lopencv_dnn -lopencv_imgcodecs -lopencv_imgproc -lopencv_core -o classify
//   ./classify exported IMAGE ...
//
// Images of 8 bits. The decision rule of the run, if it has one, is obeyed (decision.hpp).
#include "decision.hpp"

#include <iostream>
#include <opencv2/dnn.hpp>
#include <opencv2/imgcodecs.hpp>

// A row for each new pixel: the weights of the old ones along an axis, a triangle as wide as the reduction.
cv::Mat triangle(int length, int side, int size) {
    cv::Mat weights = cv::Mat::zeros(size, length, CV_32F);
    double scale = double(side) / size, support = std::max(scale, 1.0), start = (length - side) / 2.0;
    for (int row = 0; row < size; row++) {
        double center = start + (row + 0.5) * scale;
        int first = std::max(0, int(center - support + 0.5)), end = std::min(length, int(center + support + 0.5));
        for (int i = first; i < end; i++)
            weights.at<float>(row, i) = float(std::max(0.0, 1 - std::abs(i + 0.5 - center) / support));
        weights.row(row) /= cv::sum(weights.row(row))[0];
    }
    return weights;
}

// The central square of a BGR image, scaled, as the model reads it: (1, size, size, 3) of 8 bits, RGB.
cv::Mat square(const cv::Mat& image, int size) {
    int side = std::min(image.rows, image.cols), shape[] = {1, size, size, 3};
    cv::Mat across = triangle(image.cols, side, size).t(), down = triangle(image.rows, side, size), scaled;
    std::vector<cv::Mat> bands;
    cv::split(image, bands);
    std::swap(bands[0], bands[2]);
    for (cv::Mat& band : bands)
        for (bool turn : {true, false}) {  // along the columns, then along the rows, each in 8 bits
            band.convertTo(band, CV_32F);
            cv::Mat(turn ? down * band : band * across).convertTo(band, CV_8U, 1, 1e-5);  // halves are rounded up
        }
    cv::merge(bands, scaled);
    return cv::Mat(4, shape, CV_8U, scaled.data).clone();
}

int main(int count, char** arguments) {
    std::string folder = count > 1 ? arguments[1] : ".";
    Rule rule(folder);
    cv::dnn::Net net = cv::dnn::readNetFromONNX(folder + "/model.onnx");
    std::cout << "source,decision,label,probability\n";
    for (int i = 2; i < count; i++) {
        cv::Mat image = cv::imread(arguments[i]);
        if (image.empty()) { std::cerr << arguments[i] << " cannot be read\n"; continue; }
        net.setInput(square(image, rule.size));
        std::vector<cv::Mat> outputs;
        net.forward(outputs, rule.outputs());
        Answer answer = rule.decide(outputs[0], outputs.size() > 1 ? outputs[1] : cv::Mat());
        std::cout << arguments[i] << "," << answer.decision << "," << answer.label << "," << answer.probability << "\n";
    }
}
