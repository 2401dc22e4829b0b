// SPDX-License-Identifier: MIT

#include "Assignment.h"
#include <limits>
#include <utility>

// Rows enter one at a time; each enters by the path of alternating unmatched and matched pairs that is shortest in
// reduced costs, cost - rowPrice - columnPrice >= 0, found as Dijkstra does.
std::vector<std::int64_t> OpenMMFlow::assignLeastCost(const double* cost, std::int64_t n) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    std::vector<double> rowPrice(n, 0.0), columnPrice(n, 0.0);
    std::vector<std::int64_t> rowOf(n, -1), columnOf(n, -1);
    for (std::int64_t entering = 0; entering < n; entering++) {
        std::vector<double> distance(n, infinity);
        std::vector<std::int64_t> previousRow(n, -1);
        std::vector<char> done(n, 0);
        std::int64_t row = entering, end = -1;
        double reached = 0.0;
        while (end < 0) {
            std::int64_t nearest = -1;
            for (std::int64_t j = 0; j < n; j++) {
                if (done[j])
                    continue;
                const double through = reached + cost[row * n + j] - rowPrice[row] - columnPrice[j];
                if (through < distance[j]) {
                    distance[j] = through;
                    previousRow[j] = row;
                }
                if (nearest < 0 || distance[j] < distance[nearest])
                    nearest = j;
            }
            done[nearest] = 1;
            reached = distance[nearest];
            row = rowOf[nearest];
            if (row < 0)
                end = nearest;
        }
        rowPrice[entering] += reached;
        for (std::int64_t j = 0; j < n; j++)
            if (done[j] && j != end) {
                columnPrice[j] -= reached - distance[j];
                rowPrice[rowOf[j]] += reached - distance[j];
            }
        while (end >= 0) { // along the path, each row leaves its column to the row before
            const std::int64_t to = previousRow[end];
            rowOf[end] = to;
            std::swap(columnOf[to], end);
        }
    }
    return columnOf;
}
